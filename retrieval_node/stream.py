"""One stream of searches: many in flight, answered as they are ready."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Final, Protocol

from ragschema.errors import InvalidInput, RagrigError
from ragschema.types import SearchBatch
from ragschema.wire.raw import read_search, write_error
from ragschema.wire.searches import SearchParts
from retrieval_node.shard import ShardSet
from retrieval_node.workers import Ticket

MAX_INFLIGHT: Final = 256

#: Checks a request against what is loaded; raises what the caller is to be told.
Admit = Callable[[SearchParts], tuple[ShardSet, SearchBatch]]


class Queue(Protocol):
    """Where tickets go; a ``SearchPool``."""

    def submit(self, ticket: Ticket) -> None: ...


class SearchStream:
    """Serves one stream; belongs to one event loop.

    At most ``max_inflight`` requests are read before their replies are written,
    so a client that does not read its replies is not read from either. A
    request that fails is answered with its error; bytes that are no request at
    all end the stream.

    Args:
        deadline_s: of the whole stream on ``time.monotonic()``'s clock.
    """

    def __init__(
        self, admit: Admit, queue: Queue, deadline_s: float | None,
        max_inflight: int = MAX_INFLIGHT,
    ) -> None:  # fmt: skip
        self._admit = admit
        self._queue = queue
        self._deadline_s = deadline_s
        self._slots = asyncio.Semaphore(max_inflight)
        self._inflight: dict[int, Ticket] = {}
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._reader: asyncio.Future[None] | None = None

    def drain(self) -> None:
        """Reads no further requests; the stream ends once all that were read are answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def replies(self, requests: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Serialised replies to serialised requests; leaving it drops what is in flight.

        Raises:
            InvalidInput: the client sent something that is no request.
        """
        reader = self._reader = asyncio.ensure_future(self._read(requests))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not (reader.done() and not self._inflight and not self._outbox):
                _raise_failure(reader)
                if not self._outbox:
                    self._wake.clear()
                    await self._wake.wait()
                while self._outbox:
                    yield self._outbox.popleft()
                    self._slots.release()
            _raise_failure(reader)
        finally:
            reader.cancel()
            for ticket in self._inflight.values():
                ticket.leave()

    async def _read(self, requests: AsyncIterable[bytes]) -> None:
        async for data in requests:
            parts = read_search(data)
            if parts.cancel:
                self._give_up(parts.request_id)
                continue
            await self._slots.acquire()
            try:
                self._start(parts)
            except RagrigError as error:
                self._send(write_error(error, parts.request_id))

    def _start(self, parts: SearchParts) -> None:
        if parts.request_id in self._inflight:
            raise InvalidInput(
                f"{parts.request_id} is under way already",
                field="request_id",
                hint="number the requests of a stream",
            )
        shard_set, batch = self._admit(parts)
        ticket = Ticket(
            shard_set, batch, self._finished, self._deadline_of(parts), parts.request_id,
            parts.trace_id,
        )  # fmt: skip
        self._queue.submit(ticket)
        self._inflight[parts.request_id] = ticket

    def _deadline_of(self, parts: SearchParts) -> float | None:
        if not parts.timeout_ms:
            return self._deadline_s
        own_s = time.monotonic() + parts.timeout_ms / 1e3
        return own_s if self._deadline_s is None else min(own_s, self._deadline_s)

    def _finished(self, ticket: Ticket) -> None:
        del self._inflight[ticket.request_id]
        if ticket.reply is not None:
            self._send(ticket.reply)
        else:
            assert ticket.error is not None, "a ticket is answered before it is delivered"
            self._send(write_error(ticket.error, ticket.request_id))

    def _give_up(self, request_id: int) -> None:
        ticket = self._inflight.pop(request_id, None)
        if ticket is not None:
            ticket.leave()
            self._slots.release()
            self._wake.set()

    def _send(self, reply: bytes) -> None:
        self._outbox.append(reply)
        self._wake.set()


def _raise_failure(reader: asyncio.Future[None]) -> None:
    """What ended the reading, unless that was the client's end or ``drain``."""
    if reader.done() and not reader.cancelled():
        reader.result()
