"""Which KV is held, for how long, and where it comes from when its node fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

import pytest

from coordinator.metrics import Metrics
from coordinator.stages.gate import Gate
from coordinator.stages.prefill_decode import PrefillDecodeStage
from ragschema.errors import (
    CorruptData,
    Overloaded,
    PayloadTooLarge,
    RagrigError,
    Unavailable,
    UpstreamError,
)
from ragschema.rig import BatchConfig
from ragschema.types import CallContext, GenerateEnd, GenerateSpec, Role, Sampling, TokenPiece
from ragschema.wire import kv_pb2, llm_pb2
from tests.coordinator.waiting import until

Script = Callable[[kv_pb2.DecodeRequest], AsyncIterator[kv_pb2.DecodeEvent]]


class Prefiller:
    """A prefill node, and its own client.

    Attributes:
        held: tickets that nobody released.
        hangs: releasing waits until it does not.
    """

    reader = None

    def __init__(self, name: str, model: str = "m", finish: str = "") -> None:
        self.name = self.address = name
        self.client = self
        self.model, self.finish = model, finish
        self.held: list[str] = []
        self.calls = 0
        self.hangs = False
        self.error: RagrigError | None = None

    async def prefill(self, spec: GenerateSpec, context: CallContext) -> kv_pb2.PrefillReply:
        self.calls += 1
        if self.error is not None:
            raise self.error
        ticket = "" if self.finish else f"{self.name}-{self.calls}"
        self.held += [ticket] if ticket else []
        return kv_pb2.PrefillReply(
            ticket=ticket, token_ids=[5], text="a", seed=3, fingerprint=self.model,
            finish_reason=self.finish, prompt_tokens=4,
        )  # fmt: skip

    async def release_kv(self, ticket: str, context: CallContext) -> None:
        await until(lambda: not self.hangs)
        self.held.remove(ticket)


class Decoder:
    """A decode node that does what it is told, request by request."""

    name = "dec"

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.requests: list[kv_pb2.DecodeRequest] = []

    async def decode(
        self, request: kv_pb2.DecodeRequest, context: CallContext
    ) -> AsyncIterator[kv_pb2.DecodeEvent]:
        self.requests.append(request)
        async for event in self._scripts.pop(0)(request):
            yield event


class Pool:
    """The first node that fits, in the order they were given."""

    def __init__(self, decoder: Decoder, *prefillers: Prefiller) -> None:
        self._decoder, self._prefillers = decoder, prefillers

    def player(self, role: Role, *, fingerprint: str | None, tried: frozenset[str]) -> Any:
        nodes = self._players(role, fingerprint, tried)
        if not nodes:
            raise Unavailable("nobody is up")
        return nodes[0]

    def can_play(self, role: Role, fingerprint: str | None, tried: frozenset[str]) -> bool:
        return bool(self._players(role, fingerprint, tried))

    def _players(self, role: Role, fingerprint: str | None, tried: frozenset[str]) -> list[Any]:
        if role is Role.DECODE:
            return [self._decoder]
        able = [n for n in self._prefillers if fingerprint in (None, n.model)]
        return [n for n in able if n.name not in tried]


async def answering(request: kv_pb2.DecodeRequest) -> AsyncIterator[kv_pb2.DecodeEvent]:
    yield kv_pb2.DecodeEvent(tokens=kv_pb2.DecodedTokens(token_ids=[6], text="ab"))
    yield kv_pb2.DecodeEvent(
        done=llm_pb2.GenerateDone(finish_reason="length", prompt_tokens=4, completion_tokens=2)
    )


async def waiting(request: kv_pb2.DecodeRequest) -> AsyncIterator[kv_pb2.DecodeEvent]:
    yield kv_pb2.DecodeEvent(tokens=kv_pb2.DecodedTokens(token_ids=[6], text="ab"))
    await asyncio.Event().wait()


def failing(error: RagrigError) -> Script:
    async def script(request: kv_pb2.DecodeRequest) -> AsyncIterator[kv_pb2.DecodeEvent]:
        raise error
        yield

    return script


def stage(decoder: Decoder, *prefillers: Prefiller) -> Any:
    pool = cast("Any", Pool(decoder, *prefillers))
    gate = Gate(BatchConfig(max_concurrent=1), "generate", Metrics())
    asked = PrefillDecodeStage(pool, gate)
    return lambda: asked(GenerateSpec((), "q", (), Sampling(max_tokens=2)), CallContext.start(60))


async def text_of(events: Any) -> str:
    async with aclosing(events) as stream:
        return "".join([e.text async for e in stream if isinstance(e, TokenPiece)])


GONE = UpstreamError("the KV could not be pulled", field="source")


@pytest.mark.parametrize("events", [0, 1, 2, 3])
async def test_kv_is_freed_when_the_client_leaves(events: int) -> None:
    node = Prefiller("one")
    started = stage(Decoder(waiting), node)()
    for _ in range(events):
        await anext(started)
    assert len(node.held) == min(events, 1)
    await started.aclose()
    assert node.held == []


async def test_kv_is_freed_when_the_request_is_cancelled() -> None:
    node, decoder = Prefiller("one"), Decoder(waiting)
    task = asyncio.create_task(text_of(stage(decoder, node)()))
    await until(lambda: bool(decoder.requests))
    assert node.held == ["one-1"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert node.held == []


async def test_kv_is_freed_when_nobody_can_go_on() -> None:
    node = Prefiller("one")
    with pytest.raises(PayloadTooLarge):
        await text_of(stage(Decoder(failing(PayloadTooLarge("no"))), node)())
    assert node.held == []


async def test_an_answer_of_one_token_leaves_nothing_to_free() -> None:
    node = Prefiller("one", finish="stop")
    events = [event async for event in stage(Decoder(), node)()]
    assert isinstance(events[-1], GenerateEnd)
    # Releasing a ticket that was never given would raise here.
    assert (events[-1].finish_reason, node.calls, node.held) == ("stop", 1, [])


@pytest.mark.parametrize("error", [GONE, CorruptData("a wrong checksum", field="source")])
async def test_kv_that_is_replaced_is_freed(error: RagrigError) -> None:
    node, held = Prefiller("one"), []

    async def noting(request: kv_pb2.DecodeRequest) -> AsyncIterator[kv_pb2.DecodeEvent]:
        await until(lambda: "one-1" not in node.held)
        held.extend(node.held)
        async for event in answering(request):
            yield event

    decoder = Decoder(failing(error), noting)
    assert await text_of(stage(decoder, node)()) == "ab"
    assert [request.ticket for request in decoder.requests] == ["one-1", "one-2"]
    # While the second is in use the first is gone already.
    assert (held, node.held) == (["one-2"], [])


async def test_an_answer_does_not_wait_for_a_node_that_hangs() -> None:
    hung, other = Prefiller("one"), Prefiller("two")
    hung.hangs = True
    decoder = Decoder(failing(GONE), answering)
    events = stage(decoder, hung, other)()
    pieces = [await anext(events) for _ in range(4)]
    assert isinstance(pieces[-1], GenerateEnd)
    assert [request.source for request in decoder.requests] == ["one", "two"]
    assert hung.held == ["one-1"]
    hung.hangs = False
    await events.aclose()
    assert hung.held == other.held == []


async def test_a_failed_source_is_asked_again_when_no_other_can() -> None:
    first, full = Prefiller("one"), Prefiller("two")
    full.error = Overloaded("no room")
    other_model = Prefiller("three", model="another")
    decoder = Decoder(failing(GONE), answering)
    assert await text_of(stage(decoder, first, full, other_model)()) == "ab"
    assert [request.source for request in decoder.requests] == ["one", "one"]
    # What another model computed cannot follow what this one drew.
    assert (full.calls, other_model.calls) == (1, 0)


async def test_a_source_that_always_fails_is_not_asked_for_ever() -> None:
    node = Prefiller("one")
    with pytest.raises(UpstreamError):
        await text_of(stage(Decoder(*[failing(GONE)] * 9), node)())
    assert (node.calls, node.held) == (3, [])
