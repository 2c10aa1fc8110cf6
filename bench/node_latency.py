"""How long single searches take: on one node or two, and next to nothing at all."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from bench.common import note, percentile
from bench.node_collections import encoded, synthesised
from bench.node_plan import DIM, SEED, K, M, Plan, batches, context, loaded, paired, queries_of
from bench.node_process import connect, node_process, pinned
from ragschema.types import SearchBatch, SearchResult
from retrieval_node.local import LocalSearcher


async def full_scans(plan: Plan) -> dict[str, Any]:
    """One query over all codes, on one node and on two with half of each list."""
    data, name = synthesised(plan.codes, DIM, plan.nlist, M, 2, SEED)
    searcher = LocalSearcher(data / "collections" / name, "simd")
    queries = np.random.default_rng(SEED).standard_normal((8, DIM), dtype=np.float32)
    work = batches(searcher, queries, 1, plan.nlist)
    searcher.close()
    times: dict[str, list[float]] = {"one": [], "two": []}
    bounds = []
    with ExitStack() as stack:
        addresses = [stack.enter_context(node_process(data, f"ret-{n}", *pinned(n % 2)))
                     for n in range(3)]  # fmt: skip
        whole, left, right = [await connect("ret", a, True) for a in addresses]
        await loaded(whole, work[0], 0, 1)
        await loaded(left, work[0], 0)
        await loaded(right, work[0], 1)

        async def one(batch: SearchBatch) -> list[SearchResult]:
            return [await whole.search(batch, context())]

        async def two(batch: SearchBatch) -> list[SearchResult]:
            halves = ((left, (0,)), (right, (1,)))
            asked = (c.search(replace(batch, shards=s), context()) for c, s in halves)
            return list(await asyncio.gather(*asked))

        same_rows(await one(work[0]), await two(work[0]))
        for number in range(plan.rounds):
            note(f"full scans, round {number + 1} of {plan.rounds}")
            times["one"].append(await p50_ms(one, work, plan.scans))
            times["two"].append(await p50_ms(two, work, plan.scans))
            bounds.append(read_bound(plan.codes * M))
        for client in (whole, left, right):
            await client.close()
    return {
        "two_node_latency_ratio": paired(times["two"], times["one"]),
        "two_node_bound": round(statistics.median(bounds), 4),
        "one_node_ms_p50": round(statistics.median(times["one"]), 3),
        "two_node_ms_p50": round(statistics.median(times["two"]), 3),
        "rounds_one_node_ms": [round(t, 3) for t in times["one"]],
        "rounds_two_node_ms": [round(t, 3) for t in times["two"]],
    }


def same_rows(one: list[SearchResult], two: list[SearchResult]) -> None:
    """The halves' answers, merged, are the whole's."""
    merged = sorted(
        (float(d), int(r))
        for half in two
        for d, r in zip(half.distances[0], half.row_ids[0], strict=True)
    )
    want = list(zip(one[0].distances[0].tolist(), one[0].row_ids[0].tolist(), strict=True))
    assert merged[:K] == want, "two nodes find other rows than one"


async def p50_ms(
    search: Callable[[SearchBatch], Awaitable[object]], work: Sequence[SearchBatch], count: int
) -> float:
    """Median of searches one after the other."""
    times = []
    for number in range(count):
        started_s = time.perf_counter()
        await search(work[number % len(work)])
        times.append((time.perf_counter() - started_s) * 1e3)
    return percentile(times, 0.5)


def read_bound(size_bytes: int) -> float:
    """Time of two threads that read half each over that of one that reads all."""
    words = np.ones(size_bytes // 4, dtype=np.int32)
    half = len(words) // 2
    with ThreadPoolExecutor(2) as threads:

        def both() -> None:
            list(threads.map(lambda part: part.max(), (words[:half], words[half:])))

        both()
        one = min(timed(words.max) for _ in range(5))
        return min(timed(both) for _ in range(5)) / one


def timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


async def tiny_searches(plan: Plan) -> dict[str, Any]:
    """What one call costs when there is next to nothing to search."""
    data, name = encoded(min(plan.rows, 20_000), DIM, 64, M, SEED)
    searcher = LocalSearcher(data / "collections" / name, "simd")
    work = batches(searcher, queries_of(data, name)[:16], 1, 1)
    times: dict[str, list[float]] = {"inside": [], "unary": [], "streamed": []}
    with node_process(data, "ret-0") as address:
        unary = await loaded(await connect("ret-0", address, False), work[0])
        streamed = await connect("ret-0", address, True)

        async def inside(batch: SearchBatch) -> object:
            return searcher.search(batch)

        ways = {
            "inside": inside,
            "unary": lambda b: unary.search(b, context()),
            "streamed": lambda b: streamed.search(b, context()),
        }
        for number in range(plan.rounds):
            note(f"tiny searches, round {number + 1} of {plan.rounds}")
            for kind, search in ways.items():
                times[kind].append(await p50_ms(search, work, plan.tiny))
        await unary.close()
        await streamed.close()
    searcher.close()
    p50_us = {kind: statistics.median(found) * 1e3 for kind, found in times.items()}
    return {
        "unary_overhead_us_p50": round(p50_us["unary"] - p50_us["inside"]),
        "streamed_overhead_us_p50": round(p50_us["streamed"] - p50_us["inside"]),
        "inside_us_p50": round(p50_us["inside"]),
    }
