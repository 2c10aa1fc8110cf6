from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from coordinator.nodes.conversation import Conversation
from ragschema.errors import UpstreamError
from ragschema.wire.augment_pb2 import (
    AugmentDone,
    AugmentEvent,
    AugmentMessage,
    AugmentStart,
    Passages,
    RetrievalWanted,
)
from ragschema.wire.llm_pb2 import GenerateDone, TokenEvent

START = AugmentMessage(start=AugmentStart())


def wanted(index: int) -> AugmentEvent:
    return AugmentEvent(wanted=RetrievalWanted(index=index))


def token(text: str) -> AugmentEvent:
    return AugmentEvent(token=TokenEvent(text=text))


def done(index: int) -> AugmentEvent:
    return AugmentEvent(done=AugmentDone(done=GenerateDone(index=index)))


class Node:
    """Says its events in turn; ``None`` waits until the caller has answered once more."""

    def __init__(self, conversation: Conversation, events: Sequence[AugmentEvent | None]) -> None:
        self._said = conversation.said(START)
        self._events = events
        self.answers: list[AugmentMessage] = []
        self.closed = False

    async def __call__(self) -> AsyncGenerator[AugmentEvent, None]:
        assert await anext(self._said) == START
        try:
            for event in self._events:
                if event is None:
                    self.answers.append(await anext(self._said))
                else:
                    yield event
        finally:
            self.closed = True


async def _heard(
    found: Callable[[RetrievalWanted], object], events: Sequence[AugmentEvent | None]
) -> tuple[list[AugmentEvent], Node]:
    conversation = Conversation(found)  # type: ignore[arg-type]
    node = Node(conversation, events)
    async with asyncio.timeout(20):
        return [event async for event in conversation.heard(node())], node


async def test_tokens_pass_while_something_is_looked_up() -> None:
    told = asyncio.Event()

    async def found(one: RetrievalWanted) -> AugmentMessage:
        if one.index == 0:
            await told.wait()  # until the other one was answered
        told.set()
        return AugmentMessage(passages=Passages(texts=[f"for {one.index}"]))

    events = [wanted(0), token("a"), wanted(1), token("b"), None, None, done(0), done(1)]
    heard, node = await _heard(found, events)
    assert heard == [token("a"), token("b"), done(0), done(1)]
    assert [(one.index, list(one.passages.texts)) for one in node.answers] == [
        (1, ["for 1"]),
        (0, ["for 0"]),
    ]
    assert node.closed


async def test_what_fails_ends_the_conversation() -> None:
    async def found(one: RetrievalWanted) -> AugmentMessage:
        raise UpstreamError("nothing there")

    conversation = Conversation(found)
    node = Node(conversation, [token("a"), wanted(0), None])
    events = conversation.heard(node())
    assert await anext(events) == token("a")
    with pytest.raises(UpstreamError, match="nothing there"):
        await asyncio.wait_for(anext(events), 20)
    assert node.closed


async def test_what_the_stream_raises_is_raised() -> None:
    async def broken() -> AsyncGenerator[AugmentEvent, None]:
        yield token("a")
        raise UpstreamError("lost")

    async def found(one: RetrievalWanted) -> AugmentMessage:
        return AugmentMessage()

    events = Conversation(found).heard(broken())
    assert await anext(events) == token("a")
    with pytest.raises(UpstreamError, match="lost"):
        await anext(events)


async def test_leaving_stops_the_stream_and_the_look_ups() -> None:
    ended = asyncio.Event()

    async def found(one: RetrievalWanted) -> AugmentMessage:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return AugmentMessage()

    conversation = Conversation(found)
    node = Node(conversation, [wanted(0), token("a"), None])
    events = conversation.heard(node())
    assert await anext(events) == token("a")
    await asyncio.sleep(0)
    await events.aclose()
    assert ended.is_set()
    assert node.closed
