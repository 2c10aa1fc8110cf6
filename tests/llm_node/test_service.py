"""A real node process, spoken to over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ragschema.errors import (
    DeadlineExceeded,
    IncompatibleRequest,
    InvalidInput,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RagrigError,
    VersionMismatch,
)
from ragschema.storage.manifest import collection_dir, read_manifest
from ragschema.types import (
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Metric,
    Passage,
    Sampling,
)
from ragschema.wire import common_pb2, llm_pb2, llm_pb2_grpc
from ragschema.wire.client import NodeClient, say_hello
from ragschema.wire.convert import tensor_from_wire, tensor_to_wire
from ragschema.wire.generating import event_from_wire, generate_to_wire
from tests.coordinator.making import Content, unit_vectors, write_collection
from tests.llm_node.checkpoints import save_tiny_cross_encoder
from tests.llm_node.process import node_process

SERVICE = "ragrig.wire.v1.LlmNode"
CENTROIDS = unit_vectors(12, seed=2)
ENDLESS = GenerateSpec((ChatMessage("user", "go"),), "", (), Sampling(max_tokens=50_000))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def address(data_dir: Path, long_llama: Path) -> Iterator[str]:
    """Five roles; one generation may run and one may wait."""
    directory = data_dir
    limits = ("--max-running", "1", "--max-waiting", "1")
    cross = save_tiny_cross_encoder(directory / "cross")
    content = Content(unit_vectors(40), Metric.L2, centroids=CENTROIDS)
    write_collection(directory, "notes", content)
    names = "embed,generate,rerank,rewrite,index_scan"
    roles = ("--roles", names, "--reranker", str(cross), "--data", str(directory))
    shares = ("--shares", "generate=3,embed=0.5")
    model = ("--generator", f"hf:{long_llama}")
    with node_process(directory, *model, *roles, *shares, *limits) as found:
        yield found


@pytest.fixture
async def client(address: str) -> AsyncIterator[NodeClient]:
    one = NodeClient("llm-0", address)
    yield one
    await one.close()


@pytest.fixture
def stub(client: NodeClient) -> Any:
    return llm_pb2_grpc.LlmNodeStub(client.channel)


def _soon() -> CallContext:
    return CallContext.start(60)


async def _status(client: NodeClient, stub: Any) -> llm_pb2.LlmStatusReply:
    reply: llm_pb2.LlmStatusReply = await client.call(
        stub.Status, llm_pb2.LlmStatusRequest(), _soon()
    )
    return reply


async def _lanes(client: NodeClient, stub: Any) -> dict[str, llm_pb2.DeviceShare]:
    return {one.roles: one for one in (await _status(client, stub)).devices}


async def _until(client: NodeClient, stub: Any, running: int, waiting: int) -> None:
    async with asyncio.timeout(60):
        while True:
            status = await _status(client, stub)
            if (status.running, status.waiting) == (running, waiting):
                return
            await asyncio.sleep(0.01)


async def _embed(client: NodeClient, stub: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    reply = await client.call(stub.Embed, llm_pb2.EmbedRequest(texts=texts), _soon())
    return tensor_from_wire(reply.vectors, np.float32, 2, "vectors")


async def test_health_and_reflection(client: NodeClient) -> None:
    health = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", SERVICE):
        reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection.ServerReflectionInfo(iter([question]))
    answer = await call.read()
    assert SERVICE in {s.name for s in answer.list_services_response.service}


async def test_hello_names_what_the_node_can_do(client: NodeClient, stub: Any) -> None:
    reply = await say_hello(client, stub, _soon(), required=("embed", "generate"))
    assert reply.node_kind == "llm"
    assert {"embedder:minilm", "generator:hf", "tokenize"} <= set(reply.capabilities)
    with pytest.raises(VersionMismatch, match="lacks dance"):
        await say_hello(client, stub, _soon(), required=("rerank", "dance"))
    with pytest.raises(VersionMismatch, match="protocol 999"):
        await client.call(stub.Hello, common_pb2.HelloRequest(protocol_version=999), _soon())


async def test_embed(client: NodeClient, stub: Any) -> None:
    vectors = await _embed(client, stub, ["sort a list", "order a sequence", "heavy rain", ""])
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert (await _embed(client, stub, [])).shape == (0, 384)
    reply = await client.call(stub.Embed, llm_pb2.EmbedRequest(texts=["a " * 500, "b"]), _soon())
    assert (reply.truncated, reply.tokens) == (1, 256 + 3)
    assert reply.compute_us > 0


async def test_status_tells_what_the_engine_does(client: NodeClient, stub: Any) -> None:
    before = (await _status(client, stub)).engine
    turn = ChatMessage("user", "the quick brown fox jumps over the lazy dog")
    spec = GenerateSpec((turn,), "", (), Sampling(max_tokens=9))
    for _ in range(2):
        assert [m async for m in client.stream(stub.Generate, generate_to_wire(spec), _soon())]
    after = (await _status(client, stub)).engine
    assert after.steps_total >= before.steps_total + 18
    assert after.step_us_total > before.step_us_total
    assert after.prefix_hit_tokens_total > before.prefix_hit_tokens_total
    assert (after.running, after.waiting, after.kv_blocks_used) == (0, 0, 0)
    assert after.kv_blocks * after.block_tokens >= after.max_tokens > 0


async def test_all_roles_share_the_device(client: NodeClient, stub: Any) -> None:
    before = await _lanes(client, stub)
    units = before["embed"].units_total
    shares = {roles: (one.device, one.share) for roles, one in before.items()}
    assert shares == {
        "embed": ("cpu", 0.5),
        "generate+rewrite": ("cpu", 4.0),
        "rerank": ("cpu", 1.0),
        "index_scan": ("cpu", 1.0),
    }
    async with aclosing(client.stream(stub.Generate, generate_to_wire(ENDLESS), _soon())) as stream:
        await anext(stream)
        rerank = llm_pb2.RerankRequest(query="the cat", texts=["a dog"] * 200)
        await asyncio.gather(
            _embed(client, stub, ["some text"] * 40), client.call(stub.Rerank, rerank, _soon())
        )
        async with asyncio.timeout(60):  # an answer may come before its last turn is counted
            while (after := await _lanes(client, stub))["embed"].units_total != units + 2:
                await asyncio.sleep(0.01)
    gained = {roles: one.units_total - before[roles].units_total for roles, one in after.items()}
    assert gained["rerank"] > 1
    assert gained["generate+rewrite"] > gained["rerank"]
    assert gained["index_scan"] == 0
    assert after["embed"].busy_us_total > before["embed"].busy_us_total
    assert after["embed"].longest_wait_us > 0


async def test_rerank(client: NodeClient, stub: Any) -> None:
    texts = ["a dog ran", "the cat sat", "the cat sat " * 40]
    request = llm_pb2.RerankRequest(query="the cat sat", texts=texts)
    reply = await client.call(stub.Rerank, request, _soon())
    scores = tensor_from_wire(reply.scores, np.float32, 1, "scores")
    assert len(set(scores.tolist())) == 3
    assert reply.truncated == 1
    assert reply.tokens > 32
    models = {m.role: m.name for m in (await _status(client, stub)).models}
    assert models[llm_pb2.ROLE_RERANK] == "cross"
    with pytest.raises(PayloadTooLarge):
        await client.call(stub.Rerank, llm_pb2.RerankRequest(texts=["x"] * 5000), _soon())


async def test_index_scan(client: NodeClient, stub: Any, data_dir: Path) -> None:
    index = read_manifest(collection_dir(data_dir, "notes")).index
    assert index is not None
    queries = unit_vectors(3, seed=9)
    request = llm_pb2.IndexScanRequest(
        collection="notes", index_path=index.file.path, index_crc32=index.file.crc32,
        queries=tensor_to_wire(queries), nprobe=4,
    )  # fmt: skip
    reply = await client.call(stub.IndexScan, request, _soon())
    lists = tensor_from_wire(reply.lists, np.int32, 2, "lists")
    far = ((queries[:, None].astype(np.float64) - CENTROIDS) ** 2).sum(2)
    assert lists.tolist() == far.argsort(axis=1)[:, :4].tolist()
    request.index_crc32 ^= 1
    with pytest.raises(NotFound):
        await client.call(stub.IndexScan, request, _soon())
    request.nprobe = 0
    with pytest.raises(InvalidInput, match="0 lists"):
        await client.call(stub.IndexScan, request, _soon())
    request.queries.CopyFrom(tensor_to_wire(np.full((1, 8), np.nan, np.float32)))
    with pytest.raises(InvalidInput, match="NaN"):
        await client.call(stub.IndexScan, request, _soon())


async def test_rewrite(client: NodeClient, stub: Any) -> None:
    turn = llm_pb2.ChatMessage(role="user", content="What is heapq?")
    request = llm_pb2.RewriteRequest(question="How is it used?", history=[turn], max_queries=2)
    reply = await client.call(stub.Rewrite, request, _soon())
    assert len(reply.queries) <= 2
    assert reply.prompt_tokens > 100
    assert 0 < reply.completion_tokens <= 128
    assert reply.compute_us > 0
    again = await client.call(stub.Rewrite, request, _soon())
    assert again.queries == reply.queries
    for wrong, field in (
        (llm_pb2.RewriteRequest(question=" ", max_queries=1), "question"),
        (llm_pb2.RewriteRequest(question="x", max_queries=17), "max_queries"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await client.call(stub.Rewrite, wrong, _soon())
        assert caught.value.field == field


async def test_tokenize_counts_characters_not_bytes(client: NodeClient, stub: Any) -> None:
    text = "naïve 😀 Größe end"
    for role in (llm_pb2.ROLE_EMBED, llm_pb2.ROLE_GENERATE):
        request = llm_pb2.TokenizeRequest(role=role, texts=[text, ""])
        reply = await client.call(stub.Tokenize, request, _soon())
        offsets = tensor_from_wire(reply.offsets[0], np.int32, 2, "offsets")
        assert text[offsets[-1, 0] : offsets[-1, 1]].strip() in ("end", "d", "nd")
        assert offsets[-1, 1] == len(text)
        assert any(text[a:b].strip() == "😀" for a, b in offsets)
        assert tensor_from_wire(reply.offsets[1], np.int32, 2, "offsets").shape == (0, 2)


async def test_generate_streams(client: NodeClient, stub: Any) -> None:
    spec = GenerateSpec((ChatMessage("user", "go"),), "", (), Sampling(max_tokens=30))
    before = await _status(client, stub)
    events = [
        event_from_wire(m)
        async for m in client.stream(stub.Generate, generate_to_wire(spec), _soon())
    ]
    end = events[-1]
    assert isinstance(end, GenerateEnd)
    assert (end.finish_reason, end.completion_tokens) == ("length", 30)
    assert not any(isinstance(event, GenerateEnd) for event in events[:-1])
    assert len(events) > 5
    after = await _status(client, stub)
    assert after.requests_total == before.requests_total + 1
    assert after.tokens_total == before.tokens_total + end.prompt_tokens + 30
    assert after.cancelled_total == before.cancelled_total


async def test_cancelling_a_stream_frees_the_node(client: NodeClient, stub: Any) -> None:
    before = await _status(client, stub)
    for _ in range(3):
        events = client.stream(stub.Generate, generate_to_wire(ENDLESS), _soon())
        async with aclosing(events):  # type: ignore[type-var]
            await anext(events)
            assert (await _status(client, stub)).running == 1
        await _until(client, stub, 0, 0)
    assert (await _status(client, stub)).cancelled_total == before.cancelled_total + 3


async def test_overload_waiting_and_cancelled_waiters(client: NodeClient, stub: Any) -> None:
    request = generate_to_wire(ENDLESS)
    runs = stub.Generate(request)
    await runs.read()
    waits = stub.Generate(request)
    await _until(client, stub, 1, 1)
    with pytest.raises(Overloaded, match="1 generations run and 1 wait"):
        await anext(client.stream(stub.Generate, request, _soon()))
    vectors = await _embed(client, stub, ["embedding goes on meanwhile"])
    assert vectors.shape == (1, 384)
    waits.cancel()
    await _until(client, stub, 1, 0)
    runs.cancel()
    await _until(client, stub, 0, 0)


async def test_deadline_is_kept_running_and_waiting(client: NodeClient, stub: Any) -> None:
    runs = stub.Generate(generate_to_wire(ENDLESS))
    await runs.read()
    with pytest.raises(DeadlineExceeded):
        await anext(client.stream(stub.Generate, generate_to_wire(ENDLESS), CallContext.start(0.2)))
    await _until(client, stub, 1, 0)
    runs.cancel()
    await _until(client, stub, 0, 0)
    with pytest.raises(DeadlineExceeded):
        async for _ in client.stream(
            stub.Generate, generate_to_wire(ENDLESS), CallContext.start(0.5)
        ):
            pass
    await _until(client, stub, 0, 0)


async def test_concurrent_embeds_agree_with_single_ones(client: NodeClient, stub: Any) -> None:
    texts = [f"sentence number {i} about topic {i % 3}" for i in range(6)]
    alone = [await _embed(client, stub, [text]) for text in texts[:2]]
    # One may wait beside the one that runs, so a few at a time, with retries.
    results: list[np.ndarray[Any, Any] | None] = [None] * len(texts)

    async def one(i: int) -> None:
        while results[i] is None:
            try:
                results[i] = await _embed(client, stub, [texts[i]])
            except Overloaded:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(one(i) for i in range(len(texts))))
    for i in range(2):
        np.testing.assert_allclose(results[i], alone[i], atol=1e-5)
    await _until(client, stub, 0, 0)


@pytest.mark.parametrize(
    ("method", "request_message", "error", "field"),
    [
        ("Embed", llm_pb2.EmbedRequest(texts=["x"] * 4097), PayloadTooLarge, "texts"),
        ("Embed", llm_pb2.EmbedRequest(texts=["x" * (17 << 20)]), PayloadTooLarge, "texts"),
        ("Tokenize", llm_pb2.TokenizeRequest(texts=["x"]), InvalidInput, "role"),
        ("Tokenize", llm_pb2.TokenizeRequest(role=1, texts=["x"] * 4097), PayloadTooLarge, "texts"),
        ("Generate", llm_pb2.GenerateRequest(), InvalidInput, "sampling.max_tokens"),
        (
            "Generate",
            generate_to_wire(
                GenerateSpec((ChatMessage("user", "x" * 70_000),), "", (), Sampling())
            ),
            PayloadTooLarge,
            "messages",
        ),
        (
            "Generate",
            generate_to_wire(GenerateSpec((ChatMessage("pirate", "x"),), "", ())),
            InvalidInput,
            "messages.0.role",
        ),
    ],
)
async def test_bad_input_names_the_field(
    client: NodeClient,
    stub: Any,
    method: str,
    request_message: Any,
    error: type[RagrigError],
    field: str,
) -> None:
    call = getattr(stub, method)
    streamed = method == "Generate"
    reply: Any = anext(client.stream(call, request_message, _soon())) if streamed else None
    with pytest.raises(error) as caught:
        await (reply or client.call(call, request_message, _soon()))
    assert caught.value.field == field
    assert caught.value.trace_id


async def test_extractive_node_without_an_embedder(tmp_path: Path) -> None:
    with node_process(tmp_path, "--roles", "generate") as address:
        client = NodeClient("llm-1", address)
        stub = llm_pb2_grpc.LlmNodeStub(client.channel)
        with pytest.raises(IncompatibleRequest, match="does not have the role embed"):
            await client.call(stub.Embed, llm_pb2.EmbedRequest(texts=["x"]), _soon())
        passages = (Passage(3, "heapq", "Rain falls. The merge function merges sorted lists."),)
        spec = GenerateSpec((), "How to merge lists?", passages)
        text = ""
        async for message in client.stream(stub.Generate, generate_to_wire(spec), _soon()):
            event = event_from_wire(message)
            text += "" if isinstance(event, GenerateEnd) else event.text
        assert text.startswith("Extractive answer")
        assert text.endswith("The merge function merges sorted lists. [3]")
        await client.close()
