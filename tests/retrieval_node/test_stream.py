"""One stream of searches against a queue that the test answers by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from ragschema.errors import InvalidInput, NotFound, Overloaded
from ragschema.types import SearchBatch, SearchResult, SnapshotId
from ragschema.wire.raw import read_reply, write_cancel, write_reply, write_search
from ragschema.wire.searches import SearchParts, batch_from_parts
from retrieval_node.stream import SearchStream
from retrieval_node.workers import Ticket

BATCH = SearchBatch(SnapshotId("docs", 1), (0,), np.zeros((1, 2), np.float32), None, 1)
RESULT = SearchResult(
    np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64), np.ones(1, np.int32), 1
)


class Wire:
    """Both ends of one stream.

    Attributes:
        tickets: what reached the queue and is not answered.
        replies: what reached the client.
    """

    def __init__(self, deadline_s: float | None = None, max_inflight: int = 4) -> None:
        self.tickets: list[Ticket] = []
        self.replies: list[Any] = []
        self.full = False
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.stream = SearchStream(self._admit, self, deadline_s, max_inflight)
        self.served = asyncio.create_task(self._serve(self.stream))

    def submit(self, ticket: Ticket) -> None:
        if self.full:
            raise Overloaded("full", retry_after_s=0.5)
        self.tickets.append(ticket)

    def _admit(self, parts: SearchParts) -> Any:
        if parts.collection != "docs":
            raise NotFound("not loaded", field="snapshot")
        return object(), batch_from_parts(parts, 10)

    async def _serve(self, stream: SearchStream) -> None:
        replies = stream.replies(self._requests())
        try:
            async for reply in replies:
                self.replies.append(read_reply(reply))
                await self._may_read.wait()
        finally:
            await replies.aclose()  # type: ignore[attr-defined]

    async def _requests(self) -> AsyncIterator[bytes]:
        while (data := await self._sent.get()) is not None:
            yield data

    def send(self, data: bytes | None) -> None:
        self._sent.put_nowait(data)

    def ask(self, request_id: int, timeout_ms: int = 0) -> None:
        self.send(write_search(BATCH, request_id, timeout_ms))

    def answer(self, request_id: int) -> None:
        ticket = next(t for t in self.tickets if t.request_id == request_id)
        self.tickets.remove(ticket)
        ticket.reply = write_reply(RESULT, request_id)
        ticket.deliver(ticket)

    def stop_reading(self) -> None:
        self._may_read.clear()

    def read_on(self) -> None:
        self._may_read.set()

    @property
    def answered(self) -> list[int]:
        return [r.request_id for r in self.replies]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_replies_come_as_they_are_ready_and_the_stream_ends_with_the_last() -> None:
    wire = Wire()
    for request_id in (1, 2, 3):
        wire.ask(request_id)
    await until(lambda: len(wire.tickets) == 3)
    wire.answer(2)
    await until(lambda: wire.answered == [2])
    wire.send(None)
    wire.answer(3)
    wire.answer(1)
    await wire.served
    assert wire.answered == [2, 3, 1]


async def test_no_more_are_read_than_may_be_in_flight() -> None:
    wire = Wire(max_inflight=2)
    for request_id in range(1, 6):
        wire.ask(request_id)
    await until(lambda: len(wire.tickets) == 2)
    await asyncio.sleep(0.02)
    assert [t.request_id for t in wire.tickets] == [1, 2]
    wire.answer(1)
    await until(lambda: len(wire.tickets) == 2)
    assert [t.request_id for t in wire.tickets] == [2, 3]


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    wire = Wire(max_inflight=2)
    wire.stop_reading()
    for request_id in range(1, 8):
        wire.ask(request_id)
        await asyncio.sleep(0.002)
        for ticket in list(wire.tickets):
            wire.answer(ticket.request_id)
    await asyncio.sleep(0.02)
    # One was handed to the transport, two wait for it, one more was read.
    assert wire.answered == [1]
    assert len(wire.tickets) == 0
    wire.read_on()
    for request_id in range(3, 8):
        await until(lambda n=request_id: any(t.request_id == n for t in wire.tickets))  # type: ignore[misc]
        wire.answer(request_id)
    await until(lambda: wire.answered == list(range(1, 8)))


async def test_errors_stay_with_their_request() -> None:
    wire = Wire()
    other = SearchBatch(SnapshotId("films", 1), (0,), BATCH.queries, None, 1)
    wire.send(write_search(other, 1))
    wire.send(write_search(BATCH, 2).replace(b"\x28\x01", b"\x28\x00"))  # k of 0
    wire.ask(3)
    await until(lambda: len(wire.tickets) == 1)
    wire.full = True
    wire.ask(4)
    await until(lambda: len(wire.replies) == 3)
    errors = {r.request_id: r.error for r in wire.replies}
    assert {n: d.type for n, d in errors.items()} == {
        1: "not_found", 2: "invalid_input", 4: "overloaded",
    }  # fmt: skip
    assert errors[1].field == "snapshot"
    assert errors[2].field == "k"
    assert errors[4].retry_after_ms == 500
    failed = wire.tickets.pop()
    failed.error = NotFound("moved away")
    failed.deliver(failed)
    await until(lambda: len(wire.replies) == 4)
    assert wire.replies[-1].error.message == "moved away"
    wire.full = False
    wire.ask(5)
    await until(lambda: len(wire.tickets) == 1)
    wire.answer(5)
    await until(lambda: wire.answered[-1] == 5)


async def test_a_number_in_use_is_refused() -> None:
    wire = Wire()
    wire.ask(1)
    wire.ask(1)
    await until(lambda: len(wire.replies) == 1)
    assert (wire.replies[0].error.type, wire.replies[0].error.field) == (
        "invalid_input", "request_id",
    )  # fmt: skip
    assert len(wire.tickets) == 1


async def test_giving_up_one_request_frees_its_place_and_is_not_answered() -> None:
    wire = Wire(max_inflight=1)
    wire.ask(1)
    await until(lambda: len(wire.tickets) == 1)
    wire.send(write_cancel(1))
    wire.send(write_cancel(77))  # unknown: answered already, most likely
    await until(lambda: wire.tickets[0].gone)
    wire.ask(2)
    await until(lambda: len(wire.tickets) == 2)
    wire.send(None)
    wire.answer(2)
    await wire.served
    assert wire.answered == [2]


async def test_bytes_that_are_no_request_end_the_stream() -> None:
    wire = Wire()
    wire.ask(1)
    await until(lambda: len(wire.tickets) == 1)
    wire.send(b"\xff\xff\xff")
    with pytest.raises(InvalidInput) as caught:
        await wire.served
    assert caught.value.field == "request"
    assert wire.tickets[0].gone


async def test_leaving_the_stream_drops_what_is_in_flight() -> None:
    wire = Wire()
    wire.ask(1)
    wire.ask(2)
    await until(lambda: len(wire.tickets) == 2)
    wire.served.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.served
    assert all(t.gone for t in wire.tickets)


async def test_draining_answers_what_was_read_and_ends() -> None:
    wire = Wire()
    wire.ask(1)
    await until(lambda: len(wire.tickets) == 1)
    wire.stream.drain()
    wire.ask(2)
    await asyncio.sleep(0.01)
    assert [t.request_id for t in wire.tickets] == [1]
    wire.answer(1)
    await wire.served
    assert wire.answered == [1]


@pytest.mark.parametrize(
    ("stream_s", "timeout_ms", "want_s"),
    [(None, 0, None), (5.0, 0, 5.0), (5.0, 1000, 1.0), (1.0, 5000, 1.0), (None, 2000, 2.0)],
)
async def test_the_nearer_deadline_counts(
    stream_s: float | None, timeout_ms: int, want_s: float | None
) -> None:
    now_s = time.monotonic()
    wire = Wire(None if stream_s is None else now_s + stream_s)
    wire.ask(1, timeout_ms)
    await until(lambda: len(wire.tickets) == 1)
    found_s = wire.tickets[0].deadline_s
    if want_s is None:
        assert found_s is None
    else:
        assert found_s == pytest.approx(now_s + want_s, abs=0.5)
