"""A node as a process of its own, spoken to over gRPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ragschema import errors as e
from ragschema.types import CallContext, SearchBatch, SearchResult, SnapshotId
from ragschema.wire import common_pb2, retrieval_pb2, retrieval_pb2_grpc
from ragschema.wire.client import NodeClient, say_hello
from ragschema.wire.convert import snapshot_to_wire
from ragschema.wire.searches import result_from_wire, search_to_wire
from retrieval_node.local import LocalSearcher
from retrieval_node.node import SERVICE_NAME
from tests.retrieval_node.making import Made, Plan, make
from tests.retrieval_node.process import NodeProcess


@dataclass(frozen=True)
class World:
    data: Path
    pq: Made
    exact: Made
    plain: Made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    data = tmp_path_factory.mktemp("data")
    folder = data / "collections"
    return World(
        data,
        make(folder / "books", Plan(segments=(300, 40), shards=2, dead=(0, 1, 2))),
        make(folder / "notes", Plan(exact=True, segments=(50,))),
        make(folder / "plain", Plan(refine=False)),
    )


@pytest.fixture(scope="module")
def node(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(world.data, tmp_path_factory.mktemp("node"), "--threads", "2") as process:
        yield process


class Client:
    """The node's methods with typed errors."""

    def __init__(self, node: NodeProcess) -> None:
        self.raw = NodeClient("ret-t", node.address)
        self.stub = retrieval_pb2_grpc.RetrievalNodeStub(self.raw.channel)

    async def load(self, snapshot: SnapshotId, *shards: int) -> retrieval_pb2.LoadShardsReply:
        request = retrieval_pb2.LoadShardsRequest(
            snapshot=snapshot_to_wire(snapshot), shards=shards
        )
        return await self.raw.call(self.stub.LoadShards, request, CallContext.start(60))

    async def search(self, batch: SearchBatch, timeout_s: float = 60) -> SearchResult:
        return await self.send(search_to_wire(batch), timeout_s)

    async def send(self, message: object, timeout_s: float = 60) -> SearchResult:
        reply = await self.raw.call(self.stub.Search, message, CallContext.start(timeout_s))
        return result_from_wire(reply)

    async def status(self) -> retrieval_pb2.RetrievalStatusReply:
        request = retrieval_pb2.RetrievalStatusRequest()
        return await self.raw.call(self.stub.Status, request, CallContext.start(60))


@pytest.fixture
async def client(node: NodeProcess) -> AsyncIterator[Client]:
    opened = Client(node)
    yield opened
    await opened.raw.close()


BOOKS, NOTES, PLAIN = (SnapshotId(name, 1) for name in ("books", "notes", "plain"))


async def test_hello_tells_capabilities_and_refuses_what_does_not_fit(client: Client) -> None:
    reply = await say_hello(
        client.raw,
        client.stub,
        CallContext.start(30),
        ("backend:fpga", "device:emulator", "filter", "refine"),
    )
    assert (reply.node_kind, reply.node_name) == ("retrieval", "ret-t")
    with pytest.raises(e.VersionMismatch, match="backend:gpu") as caught:
        await say_hello(client.raw, client.stub, CallContext.start(30), ("backend:gpu",))
    assert "backend:fpga" in (caught.value.hint or "")
    other = common_pb2.HelloRequest(protocol_version=99, peer_name="future")
    with pytest.raises(e.VersionMismatch, match="99"):
        await client.raw.call(client.stub.Hello, other, CallContext.start(30))


async def test_health_and_reflection(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.raw.channel)
    for service in ("", SERVICE_NAME):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    reflect = reflection_pb2_grpc.ServerReflectionStub(client.raw.channel)
    call = reflect.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=30
    )
    answer = await call.read()
    names = {service.name for service in answer.list_services_response.service}
    assert SERVICE_NAME in names


async def test_searches_like_the_library(client: Client, world: World) -> None:
    loaded = await client.load(BOOKS, 0, 1)
    assert sum(loaded.rows) == 337
    assert loaded.resident_bytes > 0
    searcher = LocalSearcher(world.pq.directory, "fpga")
    rng = np.random.default_rng(1)
    bitmap = rng.integers(0, 256, 43, dtype=np.uint8)
    plain = searcher.batch(world.pq.vectors[:20], 5, nprobe=4)
    filtered = replace(plain, filters=(bitmap,), filter_of=(np.arange(20) % 2 - 1).astype(np.int32))
    for batch in (plain, filtered, replace(plain, refine_k=None), replace(plain, shards=(1,))):
        want, got = searcher.search(batch), await client.search(batch)
        np.testing.assert_array_equal(got.row_ids, want.row_ids)
        assert got.distances.tobytes() == want.distances.tobytes()
        assert got.rows_covered == want.rows_covered
        assert got.stats.codes_scanned == want.stats.codes_scanned > 0
    searcher.close()


async def test_exact_collections(client: Client, world: World) -> None:
    await client.load(NOTES, 0)
    batch = SearchBatch(NOTES, (0,), world.exact.vectors[:3], None, 1)
    result = await client.search(batch)
    assert result.row_ids[:, 0].tolist() == [0, 1, 2]
    assert result.distances[:, 0].tolist() == [0.0, 0.0, 0.0]


async def test_status_counts(client: Client, world: World) -> None:
    await client.load(BOOKS, 0)
    await client.load(NOTES, 0)
    before = await client.status()
    await client.search(SearchBatch(NOTES, (0,), world.exact.vectors[:3], None, 1))
    after = await client.status()
    assert after.searches_total == before.searches_total + 1
    assert after.queries_total == before.queries_total + 3
    assert (after.backend, after.device) == ("fpga", "emulator")
    assert (after.running, after.waiting) == (0, 0)
    rows = {held.snapshot.collection: held.rows for held in after.loaded}
    assert rows["notes"] == 50


async def test_the_card_tells_what_it_did(client: Client, world: World) -> None:
    await client.load(BOOKS, 0)
    before = (await client.status()).card
    lists = np.zeros((2, 1), np.int32)
    await client.search(SearchBatch(BOOKS, (0,), world.pq.vectors[:2], lists, 3))
    after = (await client.status()).card
    assert after.queries == before.queries + 2 * 2  # the shard has two segments
    assert after.codes > before.codes
    assert after.cycles > before.cycles
    assert after.sent_bytes > 0
    assert after.faults == 0


async def test_unloading(client: Client, world: World) -> None:
    await client.load(PLAIN, 0)
    request = retrieval_pb2.UnloadShardsRequest(snapshot=snapshot_to_wire(PLAIN))
    for expected in (True, False):
        reply = await client.raw.call(client.stub.UnloadShards, request, CallContext.start(30))
        assert reply.was_loaded is expected
    with pytest.raises(e.NotFound) as caught:
        await client.search(SearchBatch(PLAIN, (0,), world.plain.vectors[:1], None, 1))
    assert (caught.value.field, caught.value.hint) == ("snapshot", "call LoadShards first")


@pytest.mark.parametrize(
    ("snapshot", "shards", "error", "field"),
    [
        (SnapshotId("films", 1), (0,), e.NotFound, "collection"),
        (SnapshotId("books", 2), (0,), e.NotFound, "snapshot.generation"),
        (SnapshotId("books", 1), (2,), e.InvalidInput, "shards"),
        (SnapshotId("books", 1), (), e.InvalidInput, "shards"),
        (SnapshotId("../../etc", 1), (0,), e.InvalidInput, "collection"),
    ],
)
async def test_loads_that_cannot_be(
    client: Client, snapshot: SnapshotId, shards: tuple[int, ...], error: type[e.RagrigError],
    field: str,
) -> None:  # fmt: skip
    with pytest.raises(error) as caught:
        await client.load(snapshot, *shards)
    assert caught.value.field == field


LISTS = np.array([[0, 1]], dtype=np.int32)
ONE = np.zeros((1, 16), dtype=np.float32)
GOOD = SearchBatch(BOOKS, (0, 1), ONE, LISTS, 3)
BYTES = np.zeros(43, dtype=np.uint8)


@pytest.mark.parametrize(
    ("batch", "error", "field"),
    [
        (replace(GOOD, queries=ONE[:, :15]), e.InvalidInput, "queries"),
        (replace(GOOD, queries=np.full_like(ONE, np.nan)), e.InvalidInput, "queries"),
        (replace(GOOD, queries=np.full_like(ONE, 1e30)), e.InvalidInput, "queries"),
        (replace(GOOD, k=0), e.InvalidInput, "k"),
        (replace(GOOD, k=4097), e.InvalidInput, "k"),
        (replace(GOOD, refine_k=5000), e.InvalidInput, "refine_k"),
        (replace(GOOD, refine_k=2), e.InvalidInput, "refine_k"),
        (replace(GOOD, shards=()), e.InvalidInput, "shards"),
        (replace(GOOD, shards=(0, 0)), e.InvalidInput, "shards"),
        (replace(GOOD, shards=(0, 7)), e.NotFound, "shards"),
        (replace(GOOD, list_ids=None), e.InvalidInput, "list_ids"),
        (replace(GOOD, list_ids=LISTS + 7), e.InvalidInput, "list_ids"),
        (replace(GOOD, list_ids=LISTS - 2), e.InvalidInput, "list_ids"),
        (replace(GOOD, list_ids=LISTS * 0), e.InvalidInput, "list_ids"),
        (replace(GOOD, filters=(BYTES[1:],)), e.InvalidInput, "filters[0]"),
        (
            replace(GOOD, filters=(BYTES,), filter_of=np.array([1], dtype=np.int32)),
            e.InvalidInput,
            "filter_of",
        ),
        (replace(GOOD, snapshot=SnapshotId("books", 9)), e.NotFound, "snapshot"),
        (replace(GOOD, snapshot=NOTES, shards=(0,)), e.IncompatibleRequest, "list_ids"),
        (replace(GOOD, snapshot=PLAIN, shards=(0,), refine_k=9), e.IncompatibleRequest, "refine_k"),
    ],
)
async def test_searches_that_cannot_be(
    client: Client, batch: SearchBatch, error: type[e.RagrigError], field: str
) -> None:
    for snapshot, shards in ((BOOKS, (0, 1)), (NOTES, (0,)), (PLAIN, (0,))):
        await client.load(snapshot, *shards)
    with pytest.raises(error) as caught:
        await client.search(batch)
    assert caught.value.field == field
    assert caught.value.trace_id


async def test_broken_tensors_are_refused(client: Client) -> None:
    message = search_to_wire(GOOD)
    message.queries.data = message.queries.data[:-1]
    with pytest.raises(e.InvalidInput) as caught:
        await client.send(message)
    assert caught.value.field == "queries"


async def test_an_answer_over_the_message_limit_is_refused(client: Client) -> None:
    await client.load(NOTES, 0)
    queries = np.zeros((2000, 16), dtype=np.float32)
    with pytest.raises(e.PayloadTooLarge) as caught:
        await client.search(SearchBatch(NOTES, (0,), queries, None, 4096))
    assert caught.value.field == "k"


async def test_a_passed_deadline_and_a_cancelled_call_leave_nothing_behind(
    client: Client, world: World
) -> None:
    await client.load(NOTES, 0)
    batch = SearchBatch(NOTES, (0,), np.tile(world.exact.vectors, (4000, 1)), None, 5)
    with pytest.raises(e.DeadlineExceeded):
        await client.search(batch, timeout_s=0.02)
    tasks = [asyncio.ensure_future(client.search(batch)) for _ in range(6)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(60):
        while True:
            status = await client.status()
            if (status.running, status.waiting) == (0, 0):
                break
            await asyncio.sleep(0.02)


async def test_a_corrupt_file_is_named_and_the_rest_still_serves(
    world: World, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    good = make(data / "collections" / "good", Plan(segments=(60,), exact=True))
    bad = make(data / "collections" / "bad", Plan(segments=(60,), exact=True))
    path = bad.directory / bad.manifest.segments[0].shards[0].path
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(body)
    with NodeProcess(data, tmp_path, "--backend", "faiss") as node:
        client = Client(node)
        with pytest.raises(e.CorruptData) as caught:
            await client.load(SnapshotId("bad", 1), 0)
        assert str(path) in caught.value.message
        assert "Traceback" not in caught.value.message
        await client.load(SnapshotId("good", 1), 0)
        batch = SearchBatch(SnapshotId("good", 1), (0,), good.vectors[:1], None, 1)
        assert (await client.search(batch)).row_ids[0, 0] == 0
        await client.raw.close()
        assert node.terminate() == 0
        assert "Traceback" not in node.log.read_text()


async def test_more_searches_than_may_wait_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = make(data / "collections" / "many", Plan(segments=(4000,), exact=True))
    snapshot = SnapshotId("many", 1)
    with NodeProcess(data, tmp_path, "--backend", "faiss", "--max-waiting", "1") as node:
        client = Client(node)
        await client.load(snapshot, 0)
        small = SearchBatch(snapshot, (0,), made.vectors[:1], None, 1)
        # Seconds of work in pieces: one runs, one waits, until they are cancelled.
        long = replace(small, queries=np.tile(made.vectors, (50, 1)))
        tasks = [asyncio.ensure_future(client.search(long)) for _ in range(2)]
        async with asyncio.timeout(60):
            while (await client.status()).waiting == 0:
                await asyncio.sleep(0.01)
        with pytest.raises(e.Overloaded) as caught:
            await client.search(small)
        assert "--max-waiting" in (caught.value.hint or "")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(60):
            while (await client.status()).running:
                await asyncio.sleep(0.01)
        assert (await client.search(small)).row_ids[0, 0] == 0
        await client.raw.close()
        assert node.terminate() == 0
        assert "Traceback" not in node.log.read_text()


def test_a_taken_port_is_said_plainly(world: World, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as caught:
            NodeProcess(world.data, tmp_path, "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}" in str(caught.value)
    assert "choose another port" in str(caught.value)
    assert "Traceback" not in str(caught.value)
