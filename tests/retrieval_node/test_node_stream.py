"""Streams, coalescing and single shards on real node processes."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.nodes.clients import RetrievalClient
from ragschema import errors as e
from ragschema.types import CallContext, SearchBatch, SearchResult, SnapshotId
from ragschema.wire import raw, retrieval_pb2_grpc
from ragschema.wire.client import open_channel
from ragschema.wire.searches import result_from_wire, search_to_wire
from retrieval_node.backends.base import Candidates, merge_candidates
from retrieval_node.local import LocalSearcher
from retrieval_node.placement import SYS_NODES
from tests.retrieval_node.making import Made, Plan, make
from tests.retrieval_node.process import NodeProcess

BOOKS = SnapshotId("books", 1)


@dataclass(frozen=True)
class World:
    data: Path
    books: Made
    searcher: LocalSearcher


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data = tmp_path_factory.mktemp("data")
    books = make(data / "collections" / "books", Plan(segments=(900,), shards=2, dead=(3,)))
    searcher = LocalSearcher(books.directory, "simd")
    yield World(data, books, searcher)
    searcher.close()


@pytest.fixture(scope="module")
def node(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    scratch = tmp_path_factory.mktemp("node")
    with NodeProcess(world.data, scratch, "--backend", "simd") as process:
        yield process


def context(timeout_s: float = 60.0) -> CallContext:
    return CallContext.start(timeout_s)


async def connected(process: NodeProcess, streams: bool, *shards: int) -> RetrievalClient:
    client = RetrievalClient("ret-t", process.address)
    client.streams = streams
    if shards:
        await client.load(BOOKS, shards, context())
    return client


@pytest.fixture(params=[True, False], ids=["stream", "calls"])
async def client(
    node: NodeProcess, request: pytest.FixtureRequest
) -> AsyncIterator[RetrievalClient]:
    opened = await connected(node, bool(request.param), 0, 1)
    yield opened
    await opened.close()


def asking(world: World, seed: int) -> SearchBatch:
    """A batch of its own size, k, number of lists and filter."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    queries = world.books.vectors[rng.integers(0, 900, n)]
    batch = world.searcher.batch(queries, int(rng.integers(1, 9)), int(rng.integers(1, 8)))
    batch = replace(batch, refine_k=None if seed % 3 else 20)
    if seed % 2:
        bitmap = rng.integers(0, 256, 113, dtype=np.uint8)
        filter_of = rng.integers(-1, 1, n).astype(np.int32)
        batch = replace(batch, filters=(bitmap,), filter_of=filter_of)
    return batch


def assert_same(got: SearchResult, want: SearchResult) -> None:
    np.testing.assert_array_equal(got.row_ids, want.row_ids)
    np.testing.assert_array_equal(got.counts, want.counts)
    assert got.distances.tobytes() == want.distances.tobytes()
    assert got.rows_covered == want.rows_covered


async def test_many_at_once_are_answered_like_one_by_one(
    client: RetrievalClient, world: World
) -> None:
    work = [asking(world, seed) for seed in range(60)]
    results = await asyncio.gather(*(client.search(batch, context()) for batch in work))
    for batch, got in zip(work, results, strict=True):
        assert_same(got, world.searcher.search(batch))
        assert got.stats.batch_queries >= len(batch.queries)
    shared = [
        r for r, b in zip(results, work, strict=True) if r.stats.batch_queries > len(b.queries)
    ]
    assert shared  # some were put together
    status = await client.status(context())
    assert status.batches_total < status.searches_total
    assert status.bytes_scanned_total == 4 * status.codes_scanned_total > 0
    assert status.queue_us_total > 0
    assert status.scan_us_total > 0


async def test_errors_are_those_of_calls(client: RetrievalClient, world: World) -> None:
    good = asking(world, 2)
    bad = [
        (replace(good, k=0), e.InvalidInput, "k"),
        (replace(good, shards=(0, 7)), e.NotFound, "shards"),
        (replace(good, snapshot=SnapshotId("films", 1)), e.NotFound, "snapshot"),
        (replace(good, queries=good.queries[:, :3].copy()), e.InvalidInput, "queries"),
    ]
    for batch, error, field in bad:
        with pytest.raises(error) as caught:
            await client.search(batch, context())
        assert caught.value.field == field
        assert caught.value.trace_id
    assert_same(await client.search(good, context()), world.searcher.search(good))


async def test_an_exact_search_compares_every_row(client: RetrievalClient, world: World) -> None:
    queries = world.books.vectors[10:13]
    batch = replace(
        asking(world, 2), queries=queries, list_ids=None, refine_k=None, k=2, exact=True
    )
    got = await client.search(batch, context())
    assert got.row_ids[:, 0].tolist() == [10, 11, 12]
    assert_same(got, world.searcher.search(batch))


async def test_the_protobuf_library_s_clients_are_served_alike(
    node: NodeProcess, client: RetrievalClient, world: World
) -> None:
    stub = retrieval_pb2_grpc.RetrievalNodeStub(client.channel)
    batch = asking(world, 7)
    request = search_to_wire(batch)
    want = world.searcher.search(batch)
    assert_same(result_from_wire(await stub.Search(request, timeout=30)), want)
    request.request_id = 5
    call = stub.SearchStream(iter([request]), timeout=30)
    reply = await call.read()
    assert reply.request_id == 5
    assert_same(result_from_wire(reply), want)


async def test_bytes_that_are_no_message_are_invalid_input(node: NodeProcess) -> None:
    channel = open_channel(node.address)
    search = channel.unary_unary(raw.SEARCH_METHOD, bytes, bytes)
    with pytest.raises(Exception, match="not valid protobuf"):
        await search(b"\xff\xff", timeout=30)
    await channel.close(None)


async def test_placed_and_in_huge_pages_it_answers_the_same(world: World, tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    options = ["--threads", "2", "--cpus", str(cpu), "--memory", "huge", "--mode", "fast"]
    if (SYS_NODES / "node0").exists():
        options += ["--numa-node", "0"]
    options += ["--coalesce-max-batch", "8", "--coalesce-max-wait-us", "200"]
    with NodeProcess(world.data, tmp_path, "--backend", "simd", *options) as process:
        pinned = [
            task
            for task in Path(f"/proc/{process.process.pid}/task").iterdir()
            if f"Cpus_allowed_list:\t{cpu}\n" in (task / "status").read_text()
        ]
        assert len(pinned) >= 2  # the search's own thread and the kernel's other one
        client = await connected(process, True, 0, 1)
        for seed in range(6):
            batch = asking(world, seed)
            assert_same(await client.search(batch, context()), world.searcher.search(batch))
        await client.close()


async def test_a_stream_does_not_hold_up_the_node_s_end(world: World, tmp_path: Path) -> None:
    with NodeProcess(world.data, tmp_path, "--backend", "simd") as process:
        client = await connected(process, True, 0, 1)
        await client.search(asking(world, 2), context())
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, process.terminate) == 0
        with pytest.raises((e.Unavailable, e.Cancelled)):
            await client.search(asking(world, 2), context())
        await client.close()
        assert "Traceback" not in process.log.read_text()


def merged(parts: list[SearchResult], k: int) -> SearchResult:
    """What the coordinator makes of several shards' answers."""
    found = [Candidates(p.distances, p.row_ids, p.counts) for p in parts]
    all_rows = merge_candidates(found, k)
    covered = sum(p.rows_covered for p in parts)
    return SearchResult(all_rows.distances, all_rows.rows, all_rows.counts, covered)


class Owners:
    """Which node answers for which shard, and searches that follow it.

    Attributes:
        asked: searches under way, by shard and node.
    """

    def __init__(self, *clients: RetrievalClient) -> None:
        self.of = dict(enumerate(clients))
        self.asked: Counter[tuple[int, RetrievalClient]] = Counter()
        self.answered = 0

    async def search(self, batch: SearchBatch) -> SearchResult:
        parts = await asyncio.gather(*(self._ask(batch, shard) for shard in batch.shards))
        self.answered += 1
        return merged(list(parts), batch.k)

    async def _ask(self, batch: SearchBatch, shard: int) -> SearchResult:
        client = self.of[shard]
        self.asked[shard, client] += 1
        try:
            return await client.search(replace(batch, shards=(shard,)), context())
        finally:
            self.asked[shard, client] -= 1

    async def move(self, shard: int, target: RetrievalClient) -> None:
        """Loads it there, sends new searches there, and unloads it here after the last."""
        source = self.of[shard]
        await target.load(BOOKS, (shard,), context())
        self.of[shard] = target
        await until(lambda: not self.asked[shard, source])
        await source.unload(BOOKS, context(), (shard,))


async def test_a_shard_moves_between_nodes_while_both_are_searched(
    world: World, tmp_path: Path
) -> None:
    work = [replace(asking(world, seed), refine_k=None) for seed in range(12)]
    wanted = [world.searcher.search(batch) for batch in work]
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with (
        NodeProcess(world.data, folders[0], "--backend", "simd") as first,
        NodeProcess(world.data, folders[1], "--backend", "simd") as second,
    ):
        a, b = await connected(first, True, 0, 1), await connected(second, True)
        owners, moving = Owners(a, a), asyncio.Event()

        async def load(start: int) -> None:
            at = start
            while not moving.is_set():
                assert_same(await owners.search(work[at % len(work)]), wanted[at % len(work)])
                at += 1

        tasks = [asyncio.create_task(load(start)) for start in range(6)]
        for _ in range(3):
            for target in (b, a):
                answered = owners.answered
                await owners.move(1, target)
                await until(lambda n=answered: owners.answered > n + 20)  # type: ignore[misc]
        await until(lambda: owners.answered > 200)
        moving.set()
        await asyncio.gather(*tasks)
        assert [tuple(s.shards) for s in (await a.status(context())).loaded] == [(0, 1)]
        assert not (await b.status(context())).loaded
        with pytest.raises(e.NotFound):
            await b.search(replace(work[0], shards=(1,)), context())
        await a.close()
        await b.close()


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)
