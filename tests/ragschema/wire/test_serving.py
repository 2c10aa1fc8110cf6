"""A real server and a real client: what crosses the wire, and what never does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ragschema import errors as e
from ragschema.types import CallContext
from ragschema.version import PROTOCOL_VERSION
from ragschema.wire import common_pb2, llm_pb2, llm_pb2_grpc
from ragschema.wire.client import NodeClient, say_hello, typed_error
from ragschema.wire.convert import ERROR_METADATA_KEY
from ragschema.wire.serving import Greeter, ListenOptions, format_address, serve
from tests.fakes import LLM_SERVICE, ScriptedLlm, eventually, running_node

TRACE = "00112233aabbccdd"


class Peer(NodeClient):
    """A client with the LLM node's stub."""

    def __init__(self, address: str, max_message_bytes: int = 1 << 20) -> None:
        super().__init__("scripted", address, max_message_bytes)
        self.stub = llm_pb2_grpc.LlmNodeStub(self.channel)

    async def embed(self, *texts: str, timeout_s: float = 30.0) -> llm_pb2.EmbedReply:
        request = llm_pb2.EmbedRequest(texts=texts)
        context = CallContext.start(timeout_s, TRACE)
        reply: llm_pb2.EmbedReply = await self.call(self.stub.Embed, request, context)
        return reply


@pytest.fixture
def servicer() -> ScriptedLlm:
    return ScriptedLlm()


@pytest.fixture
async def peer(servicer: ScriptedLlm, tmp_path: Path) -> AsyncIterator[Peer]:
    async with running_node(tmp_path / "node.ready", servicer) as address:
        client = Peer(address)
        yield client
        await client.close()


async def test_a_call_carries_its_trace_id(peer: Peer, servicer: ScriptedLlm) -> None:
    reply = await peer.embed("abc", "de")
    assert list(reply.vectors.shape) == [2, 1]
    assert servicer.trace_ids == [TRACE]


@pytest.mark.parametrize("name", sorted(e.all_error_types()))
async def test_every_error_crosses_the_wire_whole(peer: Peer, name: str) -> None:
    with pytest.raises(e.RagrigError) as caught:
        await peer.embed(f"raise:{name}")
    error = caught.value
    assert type(error) is e.all_error_types()[name]
    assert error.message == "as ordered: ünïcode"
    assert (error.field, error.hint) == ("texts.0", "order something else")
    assert error.trace_id == TRACE


async def test_a_defect_reaches_the_peer_without_details(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(e.InternalError) as caught:
        await peer.embed("crash")
    seen = f"{caught.value} {caught.value.__cause__}"
    assert "secret" not in seen
    assert "KeyError" not in seen
    assert "Traceback" not in seen
    assert caught.value.trace_id == TRACE
    assert "a secret of the handler" in caplog.text  # the node's own log has it


@pytest.mark.parametrize("order", ["long:100", "long:100000"])
async def test_a_long_message_does_not_lose_the_error(peer: Peer, order: str) -> None:
    with pytest.raises(e.InvalidInput) as caught:
        await peer.embed(order)
    assert caught.value.message.startswith("x" * 100)
    assert caught.value.field == "texts.0"


async def test_an_undecodable_file_name_does_not_lose_the_error(peer: Peer) -> None:
    with pytest.raises(e.UnreadableDocument) as caught:
        await peer.embed("surrogate")
    assert caught.value.field == "path"


async def test_the_deadline_ends_the_call_and_the_handler(
    peer: Peer, servicer: ScriptedLlm
) -> None:
    with pytest.raises(e.DeadlineExceeded) as caught:
        await peer.embed("sleep", timeout_s=0.3)
    assert caught.value.trace_id == TRACE
    await eventually(servicer.cancelled.is_set)


async def test_a_passed_deadline_is_not_even_sent(peer: Peer, servicer: ScriptedLlm) -> None:
    with pytest.raises(e.DeadlineExceeded):
        await peer.embed("abc", timeout_s=-1.0)
    assert servicer.trace_ids == []


async def test_cancelling_reaches_the_handler(peer: Peer, servicer: ScriptedLlm) -> None:
    call = asyncio.create_task(peer.embed("sleep"))
    await eventually(servicer.started.is_set)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(servicer.cancelled.is_set)


async def test_leaving_a_stream_cancels_the_handler(peer: Peer, servicer: ScriptedLlm) -> None:
    request = llm_pb2.GenerateRequest(question="go on")
    events = peer.stream(peer.stub.Generate, request, CallContext.start(30.0, TRACE))
    async for event in events:
        assert event.token.text == "on "
        break
    await events.aclose()  # type: ignore[attr-defined]
    await eventually(servicer.cancelled.is_set)


async def test_an_error_in_a_stream_keeps_its_type(peer: Peer) -> None:
    request = llm_pb2.GenerateRequest(question="raise:overloaded")
    with pytest.raises(e.Overloaded) as caught:
        async for _ in peer.stream(peer.stub.Generate, request, CallContext.start(30.0, TRACE)):
            pass
    assert (caught.value.field, caught.value.trace_id) == ("texts.0", TRACE)


async def test_a_defect_in_a_stream_stays_inside(peer: Peer) -> None:
    request = llm_pb2.GenerateRequest(question="crash")
    with pytest.raises(e.InternalError) as caught:
        async for _ in peer.stream(peer.stub.Generate, request, CallContext.start(30.0, TRACE)):
            pass
    assert "secret" not in str(caught.value)


async def test_a_stream_obeys_its_deadline(peer: Peer, servicer: ScriptedLlm) -> None:
    request = llm_pb2.GenerateRequest(question="go on")
    with pytest.raises(e.DeadlineExceeded):
        async for _ in peer.stream(peer.stub.Generate, request, CallContext.start(0.3, TRACE)):
            pass
    await eventually(servicer.cancelled.is_set)


async def test_a_request_over_the_size_limit_is_refused(peer: Peer) -> None:
    wide = Peer(peer.address, max_message_bytes=64 << 20)
    with pytest.raises(e.PayloadTooLarge):
        await wide.embed("x" * (2 << 20))
    await wide.close()
    assert (await peer.embed("still alive")).vectors.shape == [1, 1]


async def test_a_reply_over_the_size_limit_is_refused(peer: Peer) -> None:
    with pytest.raises(e.PayloadTooLarge):
        await peer.embed(f"large:{1 << 20}")
    assert (await peer.embed("still alive")).vectors.shape == [1, 1]


async def test_an_unknown_method_is_a_version_mismatch(peer: Peer) -> None:
    method = peer.channel.unary_unary("/ragrig.wire.v1.LlmNode/FromTheFuture", None, None)
    with pytest.raises(e.VersionMismatch):
        await peer.call(method, b"", CallContext.start(10.0))


async def test_garbage_instead_of_a_message_is_refused(peer: Peer) -> None:
    method = peer.channel.unary_unary("/ragrig.wire.v1.LlmNode/Embed", None, None)
    with pytest.raises(e.RagrigError):
        await peer.call(method, b"\xff\xff\xff\xff", CallContext.start(10.0))
    assert (await peer.embed("still alive")).vectors.shape == [1, 1]


async def test_hello_exchanges_versions(peer: Peer) -> None:
    reply = await say_hello(peer, peer.stub, CallContext.start(10.0), ("embed",))
    assert (reply.node_name, reply.node_kind) == ("scripted", "llm")
    assert reply.protocol_version == PROTOCOL_VERSION
    assert len(reply.instance_id) == 16


async def test_the_server_refuses_another_protocol(peer: Peer) -> None:
    request = common_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION + 1, peer_name="new")
    with pytest.raises(e.VersionMismatch, match="'new'") as caught:
        await peer.call(peer.stub.Hello, request, CallContext.start(10.0))
    assert caught.value.hint
    assert caught.value.field == "protocol_version"


async def test_the_server_refuses_a_capability_it_lacks(peer: Peer) -> None:
    with pytest.raises(e.VersionMismatch, match="lacks rerank") as caught:
        await say_hello(peer, peer.stub, CallContext.start(10.0), ("embed", "rerank"))
    assert "generate" in (caught.value.hint or "")


class FromTheFuture(Greeter):
    """Accepts everybody and speaks a later protocol."""

    def hello(self, request: common_pb2.HelloRequest) -> common_pb2.HelloReply:
        return common_pb2.HelloReply(protocol_version=PROTOCOL_VERSION + 1, node_name="n")


async def test_the_client_refuses_another_protocol(tmp_path: Path) -> None:
    servicer = ScriptedLlm(FromTheFuture("n", "llm", ()))
    async with running_node(tmp_path / "ready", servicer) as address:
        peer = Peer(address)
        with pytest.raises(e.VersionMismatch, match=f"protocol {PROTOCOL_VERSION + 1}"):
            await say_hello(peer, peer.stub, CallContext.start(10.0))
        await peer.close()


def test_a_restart_changes_the_instance_id() -> None:
    request = common_pb2.HelloRequest(protocol_version=PROTOCOL_VERSION)
    first, second = (Greeter("n", "llm", ()).hello(request) for _ in range(2))
    assert first.instance_id != second.instance_id


@pytest.mark.parametrize("service", ["", LLM_SERVICE])
async def test_health_answers(peer: Peer, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(peer.channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_service(peer: Peer) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(peer.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    async for reply in stub.ServerReflectionInfo(requests, timeout=10):
        names = {service.name for service in reply.list_services_response.service}
        assert {LLM_SERVICE, "grpc.health.v1.Health"} <= names
        break


async def test_a_taken_port_is_named(peer: Peer) -> None:
    port = int(peer.address.rpartition(":")[2])
    with pytest.raises(e.Unavailable, match=str(port)) as caught:
        await serve(ListenOptions(name="second", port=port), LLM_SERVICE, lambda _: None)
    assert caught.value.field == "port"
    assert caught.value.hint


async def test_a_dead_node_is_unavailable(tmp_path: Path) -> None:
    async with running_node(tmp_path / "ready", ScriptedLlm()) as address:
        pass
    peer = Peer(address)
    with pytest.raises(e.Unavailable, match="node scripted"):
        await peer.embed("x")
    await peer.close()


async def test_a_node_that_comes_back_is_found_again(tmp_path: Path) -> None:
    async with running_node(tmp_path / "first", ScriptedLlm()) as address:
        peer = Peer(address)
        await peer.embed("x")
    with pytest.raises(e.Unavailable):
        await peer.embed("x")

    port = int(address.rpartition(":")[2])
    async with running_node(tmp_path / "second", ScriptedLlm(), port=port):
        async with asyncio.timeout(20):
            while True:
                try:
                    await peer.embed("x")
                    break
                except e.Unavailable:
                    await asyncio.sleep(0.05)
        await peer.close()


async def test_a_servers_end_is_drained_not_cut(tmp_path: Path) -> None:
    """SIGTERM lets a call under way end; here it is longer than the drain."""
    servicer = ScriptedLlm()
    async with running_node(tmp_path / "ready", servicer) as address:
        peer = Peer(address)
        call = asyncio.create_task(peer.embed("sleep"))
        await eventually(servicer.started.is_set)
    with pytest.raises(e.RagrigError):
        await call
    assert servicer.cancelled.is_set()
    await peer.close()


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")]
)
def test_addresses(host: str, text: str) -> None:
    assert format_address(host, 7) == text


class Refusal(grpc.RpcError):
    """A failed call with any trailers."""

    def __init__(self, code: grpc.StatusCode, trailers: tuple[tuple[str, bytes], ...]) -> None:
        self._code, self._trailers = code, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> Any:
        return self._trailers


def test_a_bare_status_names_the_node() -> None:
    error = typed_error(Refusal(grpc.StatusCode.UNAVAILABLE, ()), "ret-0", TRACE)
    assert isinstance(error, e.Unavailable)
    assert error.message == "node ret-0: unavailable"
    assert error.trace_id == TRACE


def test_a_garbled_detail_leaves_the_status() -> None:
    trailers = ((ERROR_METADATA_KEY, b"\xff\xff\xff"),)
    error = typed_error(Refusal(grpc.StatusCode.NOT_FOUND, trailers), "ret-0", TRACE)
    assert isinstance(error, e.NotFound)
