"""Searches through one real stream to a scripted node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from ragschema import errors as e
from ragschema.types import CallContext, SearchBatch, SearchResult, SnapshotId
from ragschema.wire import raw
from ragschema.wire.client import open_channel
from ragschema.wire.pipelined import AnsweredByNode, PipelinedSearches
from ragschema.wire.searches import ReplyParts, SearchParts, batch_from_parts, result_from_parts
from ragschema.wire.serving import ErrorInterceptor

SERVICE = "ragrig.wire.v1.RetrievalNode"


def asking(value: float) -> SearchBatch:
    queries = np.full((1, 2), value, np.float32)
    return SearchBatch(SnapshotId("docs", 1), (0,), queries, None, 1)


def value_of(reply: ReplyParts) -> int:
    return int(result_from_parts(reply).row_ids[0, 0])


class Node:
    """Holds requests until it is told what to do with them.

    Attributes:
        held: requests that are not answered, by the value asked for.
        cancelled: request ids that were given up.
        opened: streams so far.
    """

    def __init__(self) -> None:
        self.held: dict[int, SearchParts] = {}
        self.cancelled: list[int] = []
        self.opened = self.left = 0
        self.refusal: e.RagrigError | None = None
        self._replies: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def SearchStream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        self.opened += 1
        if self.refusal is not None:
            raise self.refusal
        reader = asyncio.ensure_future(self._read(requests))
        try:
            while (reply := await self._replies.get()) is not None:
                yield reply
        finally:
            reader.cancel()
            self.left += 1

    async def _read(self, requests: Any) -> None:
        async for data in requests:
            parts = raw.read_search(data)
            if parts.cancel:
                self.cancelled.append(parts.request_id)
            else:
                value = int(batch_from_parts(parts, 10).queries[0, 0])
                self.held[value] = parts

    def answer(self, value: int) -> None:
        row = np.full((1, 1), value, np.int64)
        result = SearchResult(np.zeros((1, 1), np.float32), row, np.ones(1, np.int32), 1)
        self._replies.put_nowait(raw.write_reply(result, self.held.pop(value).request_id))

    def refuse(self, value: int, error: e.RagrigError) -> None:
        self._replies.put_nowait(raw.write_error(error, self.held.pop(value).request_id))

    def send(self, data: bytes | None) -> None:
        self._replies.put_nowait(data)


@asynccontextmanager
async def served(node: Node, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(
        interceptors=(ErrorInterceptor(),), options=(("grpc.so_reuseport", 0),)
    )
    handlers: Any = {"SearchStream": grpc.stream_stream_rpc_method_handler(node.SearchStream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[PipelinedSearches]:
    channel = open_channel(f"127.0.0.1:{port}")
    searches = PipelinedSearches(channel, "ret-t")
    try:
        yield searches
    finally:
        await searches.close()
        await channel.close(None)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def searches(node: Node) -> AsyncIterator[PipelinedSearches]:
    async with served(node) as port, client(port) as opened:
        yield opened


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def start(searches: PipelinedSearches, value: int, timeout_s: float = 30.0) -> Any:
    context = CallContext.start(timeout_s, f"trace-{value}")
    return asyncio.ensure_future(searches.search(asking(value), context))


async def test_replies_find_their_requests_in_any_order(
    node: Node, searches: PipelinedSearches
) -> None:
    tasks = [start(searches, value) for value in range(4)]
    await until(lambda: len(node.held) == 4)
    for value in (2, 0, 3, 1):
        node.answer(value)
    assert [value_of(r) for r in await asyncio.gather(*tasks)] == [0, 1, 2, 3]
    assert node.opened == 1
    assert node.cancelled == []


async def test_the_deadline_travels_and_ends_the_wait(
    node: Node, searches: PipelinedSearches
) -> None:
    patient, hasty = start(searches, 1), start(searches, 2, 0.2)
    await until(lambda: len(node.held) == 2)
    assert 100 < node.held[2].timeout_ms <= 200
    with pytest.raises(e.DeadlineExceeded) as caught:
        await hasty
    assert caught.value.trace_id == "trace-2"
    await until(lambda: node.cancelled == [node.held[2].request_id])
    node.answer(2)  # too late; nobody is confused by it
    node.answer(1)
    assert value_of(await patient) == 1


async def test_a_passed_deadline_is_not_even_sent(node: Node, searches: PipelinedSearches) -> None:
    with pytest.raises(e.DeadlineExceeded):
        await start(searches, 1, -1.0)
    assert node.opened == 0


async def test_a_cancelled_search_is_given_up_alone(
    node: Node, searches: PipelinedSearches
) -> None:
    stays, leaves = start(searches, 1), start(searches, 2)
    await until(lambda: len(node.held) == 2)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    await until(lambda: node.cancelled == [node.held[2].request_id])
    node.answer(1)
    assert value_of(await stays) == 1
    assert node.opened == 1


@pytest.mark.parametrize("name", sorted(e.all_error_types()))
async def test_an_error_hits_its_own_request(
    node: Node, searches: PipelinedSearches, name: str
) -> None:
    good, bad = start(searches, 1), start(searches, 2)
    await until(lambda: len(node.held) == 2)
    error = e.all_error_types()[name]
    node.refuse(2, error("as ordered", field="k", hint="else"))
    with pytest.raises(error) as caught:
        await bad
    assert type(caught.value) is error
    assert (caught.value.message, caught.value.field) == ("as ordered", "k")
    assert caught.value.trace_id == "trace-2"
    assert isinstance(caught.value.__cause__, AnsweredByNode)
    node.answer(1)
    assert value_of(await good) == 1


async def test_the_estimate_of_a_refusal_arrives(node: Node, searches: PipelinedSearches) -> None:
    refused = start(searches, 1)
    await until(lambda: len(node.held) == 1)
    node.refuse(1, e.Overloaded("full", retry_after_s=0.125))
    with pytest.raises(e.Overloaded) as caught:
        await refused
    assert caught.value.retry_after_s == 0.125


async def test_a_lost_node_fails_what_was_in_flight_and_is_found_again() -> None:
    old, new = Node(), Node()
    async with served(old) as port:
        channel = open_channel(f"127.0.0.1:{port}")
        searches = PipelinedSearches(channel, "ret-t")
        tasks = [start(searches, value) for value in (1, 2)]
        await until(lambda: len(old.held) == 2)
    for task in tasks:
        with pytest.raises((e.Unavailable, e.Cancelled)):
            await task
    async with served(new, port):
        async with asyncio.timeout(20):
            while not new.held:
                again = start(searches, 3)
                await until(lambda: bool(new.held) or again.done())  # noqa: B023
                if again.done():
                    assert isinstance(again.exception(), e.Unavailable)
        new.answer(3)
        assert value_of(await again) == 3
        await searches.close()
        await channel.close(None)


async def test_a_node_that_ends_breaks_the_stream(node: Node) -> None:
    async with served(node) as port, client(port) as searches:
        task = start(searches, 1)
        await until(lambda: len(node.held) == 1)
        node.send(None)
        with pytest.raises(e.Unavailable, match="ret-t"):
            await task


async def test_a_dead_node_is_unavailable() -> None:
    async with served(Node()) as port:
        pass
    async with client(port) as searches:
        with pytest.raises(e.Unavailable) as caught:
            await start(searches, 1)
        assert caught.value.trace_id == "trace-1"
        assert not isinstance(caught.value.__cause__, AnsweredByNode)


async def test_a_refused_stream_gives_the_node_s_reason(node: Node) -> None:
    node.refusal = e.InvalidInput("no streams today", field="request")
    async with served(node) as port, client(port) as searches:
        with pytest.raises(e.InvalidInput, match="no streams today"):
            await start(searches, 1)


async def test_bytes_that_are_no_reply_end_the_stream(
    node: Node, searches: PipelinedSearches
) -> None:
    task = start(searches, 1)
    await until(lambda: len(node.held) == 1)
    node.send(b"\xff\xff")
    with pytest.raises(e.UpstreamError):
        await task
    await until(lambda: node.left == 1)


async def test_a_request_over_the_limit_does_not_cost_the_others_their_stream(node: Node) -> None:
    async with served(node) as port:
        channel = open_channel(f"127.0.0.1:{port}")
        searches = PipelinedSearches(channel, "ret-t", max_message_bytes=200)
        task = start(searches, 1)
        await until(lambda: len(node.held) == 1)
        many = replace(asking(2), queries=np.zeros((50, 2), np.float32))
        with pytest.raises(e.PayloadTooLarge) as caught:
            await searches.search(many, CallContext.start(30, "big"))
        assert caught.value.trace_id == "big"
        node.answer(1)
        assert value_of(await task) == 1
        await searches.close()
        await channel.close(None)


async def test_closing_ends_what_is_in_flight(node: Node, searches: PipelinedSearches) -> None:
    task = start(searches, 1)
    await until(lambda: len(node.held) == 1)
    await searches.close()
    with pytest.raises(e.Unavailable):
        await task
    await until(lambda: node.left == 1)
