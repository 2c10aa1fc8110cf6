"""What does a retrieval node add to the kernel it runs?

``node_fraction_of_kernel``: queries per second through gRPC, batches of 64 and
several in flight, over those of the same native search called in a loop inside
one process. Both run in turn on the same files, one kernel thread each; the node
may not put batches together here, so that kernel calls are equal. The figure is
the median over rounds; ``node_fraction_coalesced`` is the same with a node that
may. 1M clustered vectors, nlist 1024, M 16, nprobe 32, k 10.

``two_node_latency_ratio``: p50 of a full scan (nprobe = nlist) of one query on
two nodes with half of every list each over p50 on one node with everything, every
node with one kernel thread. ``two_node_bound`` is what memory allows: the time in
which two threads read half of as many bytes each, over that of one that reads all.

``unary_overhead_us_p50`` and ``streamed_overhead_us_p50``: p50 of a search of one
query in one list, sequentially through gRPC, minus p50 of the same search in
process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench.common import emit, machine, note, options, typed_failures
from bench.node_collections import encoded
from bench.node_latency import full_scans, tiny_searches
from bench.node_plan import DIM, SEED, M, Plan, batches, context, loaded, paired, queries_of
from bench.node_process import connect, node_process
from coordinator.nodes.clients import RetrievalClient
from ragschema.procs import calm_thread_pools
from ragschema.types import SearchBatch
from retrieval_node.local import LocalSearcher
from retrieval_node.native.loader import require_native


class Kernel:
    """The native search on one thread, without anything around it."""

    def __init__(self, searcher: LocalSearcher) -> None:
        native = require_native()
        held = searcher.shard_set
        assert held.index is not None, "these collections have an index"
        self._search = native.search
        self._index = held.index.handle
        self._segments = [s.handle for n in sorted(held.shards) for s in held.shards[n].segments]
        self._pool = native.Pool(1)

    def __call__(self, batch: SearchBatch) -> Any:
        return self._search(
            self._index, self._segments, batch.queries, batch.list_ids, batch.k, self._pool
        )


def kernel_rate(kernel: Kernel, work: Sequence[SearchBatch], seconds: float) -> float:
    """Queries per second of calls one after the other."""
    done, started_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < seconds:
        batch = work[done % len(work)]
        kernel(batch)
        done += 1
    return done * len(work[0].queries) / passed_s


async def node_rate(
    client: RetrievalClient, work: Sequence[SearchBatch], inflight: int, seconds: float
) -> float:
    """Queries per second with several requests under way."""
    done, started_s = 0, time.perf_counter()

    async def ask(at: int) -> None:
        nonlocal done
        while time.perf_counter() - started_s < seconds:
            await client.search(work[at % len(work)], context())
            at += inflight
            done += 1

    await asyncio.gather(*(ask(number) for number in range(inflight)))
    return done * len(work[0].queries) / (time.perf_counter() - started_s)


async def throughput(plan: Plan) -> dict[str, Any]:
    """The share of the kernel's speed that is left behind gRPC."""
    data, name = encoded(plan.rows, DIM, plan.nlist, M, SEED)
    searcher = LocalSearcher(data / "collections" / name, "simd")
    work = batches(searcher, queries_of(data, name), plan.batch, plan.nprobe)
    kernel = Kernel(searcher)
    alone = ("--coalesce-max-batch", str(plan.batch))
    rates: dict[str, list[float]] = {"kernel": [], "node": [], "coalesced": [], "unary": []}
    with ExitStack() as stack:
        plain = stack.enter_context(node_process(data, "ret-0", *alone))
        merging = stack.enter_context(node_process(data, "ret-1"))
        clients = {
            "node": await loaded(await connect("ret-0", plain, True), work[0]),
            "unary": await connect("ret-0", plain, False),
            "coalesced": await loaded(await connect("ret-1", merging, True), work[0]),
        }
        await check_equal(clients, kernel, work[0])
        for number in range(plan.rounds):
            note(f"batches of {plan.batch}, round {number + 1} of {plan.rounds}")
            rates["kernel"].append(kernel_rate(kernel, work, plan.seconds))
            for kind, client in clients.items():
                rates[kind].append(await node_rate(client, work, plan.inflight, plan.seconds))
        for client in clients.values():
            await client.close()
    searcher.close()
    return {
        "node_fraction_of_kernel": paired(rates["node"], rates["kernel"]),
        "node_fraction_coalesced": paired(rates["coalesced"], rates["kernel"]),
        "node_fraction_unary": paired(rates["unary"], rates["kernel"]),
        "kernel_qps": round(statistics.median(rates["kernel"])),
        "node_qps": round(statistics.median(rates["node"])),
        "rounds_kernel_qps": [round(r) for r in rates["kernel"]],
        "rounds_node_qps": [round(r) for r in rates["node"]],
    }


async def check_equal(
    clients: dict[str, RetrievalClient], kernel: Kernel, batch: SearchBatch
) -> None:
    """Speed of another answer would mean nothing."""
    want = kernel(batch)
    for client in clients.values():
        got = await client.search(batch, context())
        assert np.array_equal(got.row_ids, want.rows), "the node gives other rows"
        assert np.array_equal(got.distances, want.distances), "the node gives other distances"


async def measure(plan: Plan) -> dict[str, Any]:
    result = await throughput(plan)
    result |= await full_scans(plan)
    result |= await tiny_searches(plan)
    return result | {"seed": SEED, "batch": plan.batch, "inflight": plan.inflight,
                     "rows": plan.rows, "codes": plan.codes}  # fmt: skip


def arguments() -> argparse.ArgumentParser:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--inflight", type=int, default=Plan.inflight)
    parser.add_argument("--quick", action="store_true", help="small sizes; figures mean nothing")
    return parser


def main() -> None:
    given = arguments().parse_args()
    plan = Plan(rounds=given.rounds, inflight=given.inflight)
    if given.quick:
        plan = plan.quick()
    emit(asyncio.run(measure(plan)) | {"machine": machine()}, given)


if __name__ == "__main__":
    calm_thread_pools(1)
    with typed_failures():
        main()
