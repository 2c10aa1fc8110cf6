"""The queue in front of the kernels and the threads that empty it.

A search waits in the queue, is put together with others that may share a
kernel call, and is answered on the event loop, once per call and not per
search. Replies are serialised before, in the worker's thread.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    RagrigError,
    Unavailable,
)
from ragschema.types import SearchBatch, SearchResult
from ragschema.wire.raw import write_reply
from retrieval_node.cancel import Cancellation
from retrieval_node.coalesce import CoalesceLimits, batch_key, merge, split
from retrieval_node.counters import Counters
from retrieval_node.shard import ShardSet

log = logging.getLogger(__name__)

Search = Callable[[ShardSet, SearchBatch, Cancellation], SearchResult]
_SMOOTHING = 0.2


@dataclass(eq=False, slots=True)
class Ticket:
    """One search on its way through the queue.

    Attributes:
        deliver: called on the event loop once ``reply`` or ``error`` is set,
            unless the caller has left.
        deadline_s: on ``time.monotonic()``'s clock; None for none.
        request_id: echoed in the reply.
        reply: a serialised SearchReply.
    """

    shard_set: ShardSet
    batch: SearchBatch
    deliver: Callable[[Ticket], None]
    deadline_s: float | None = None
    request_id: int = 0
    trace_id: str = ""
    reply: bytes | None = None
    error: RagrigError | None = None
    key: Hashable = field(init=False)
    asked_s: float = field(default_factory=time.perf_counter)
    gone: bool = False
    running: Running | None = None

    def __post_init__(self) -> None:
        self.key = (id(self.shard_set), batch_key(self.batch))

    def leave(self) -> None:
        """Nobody waits any more: it is not started, or its kernel call is
        stopped once everybody in it has left."""
        self.gone = True
        if self.running is not None:
            self.running.someone_left()


class Running:
    """One kernel call and those who wait for it."""

    def __init__(self, tickets: list[Ticket]) -> None:
        self._tickets = tickets
        deadlines = [t.deadline_s for t in tickets if t.deadline_s is not None]
        whole = len(deadlines) == len(tickets)
        self.cancel = Cancellation(max(deadlines) if whole else None)
        for ticket in tickets:
            ticket.running = self
        self.someone_left()  # before it was listening

    def someone_left(self) -> None:
        if all(t.gone for t in self._tickets):
            self.cancel.set()


class SearchPool:
    """Runs searches on ``workers`` threads; at most ``max_waiting`` queue.

    ``submit`` belongs to one event loop, on which answers are delivered and the
    counters are read.

    Args:
        cpu: the processor that the threads are pinned to; None: any.
    """

    def __init__(
        self, search: Search, workers: int, max_waiting: int,
        limits: CoalesceLimits | None = None, counters: Counters | None = None,
        cpu: int | None = None,
    ) -> None:  # fmt: skip
        self._search = search
        self._cpu = cpu
        self._max_waiting = max_waiting
        self._limits = limits or CoalesceLimits()
        self._counters = counters or Counters()
        self._queue: deque[Ticket] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._admitted = 0
        self._request_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"search-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> int:
        return self._admitted - self.waiting

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def submit(self, ticket: Ticket) -> None:
        """Queues a search.

        Raises:
            Overloaded: too many are waiting; says when a retry may succeed.
            Unavailable: the node is going down.
        """
        if self._closed:
            raise Unavailable("the node is shutting down", hint="ask another node")
        self._loop = asyncio.get_running_loop()
        with self._ready:
            if len(self._queue) >= self._max_waiting:
                raise Overloaded(
                    f"{self._max_waiting} searches are waiting already",
                    retry_after_s=self._retry_after_s(),
                    hint="retry later, or start the node with a larger --max-waiting",
                )
            self._queue.append(ticket)
            self._admitted += 1
            self._ready.notify()

    async def run(
        self, shard_set: ShardSet, batch: SearchBatch, deadline_s: float | None, trace_id: str = ""
    ) -> bytes:
        """Queues a search and waits for its serialised reply.

        Raises:
            Overloaded, Unavailable: it was not queued.
            DeadlineExceeded: the deadline passed before or while it ran.
            RagrigError: what the search raised.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def deliver(ticket: Ticket) -> None:
            if future.done():
                return
            if ticket.reply is not None:
                future.set_result(ticket.reply)
            else:
                assert ticket.error is not None, "a ticket is answered before it is delivered"
                future.set_exception(ticket.error)

        ticket = Ticket(shard_set, batch, deliver, deadline_s, trace_id=trace_id)
        self.submit(ticket)
        try:
            return await future
        except asyncio.CancelledError:
            ticket.leave()
            raise

    def close(self) -> None:
        """Drops what waits and lets what runs finish."""
        with self._ready:
            self._closed = True
            dropped = list(self._queue)
            self._queue.clear()
            self._ready.notify_all()
        for ticket in dropped:
            ticket.error = Unavailable("the node is shutting down", hint="ask another node")
        self._hand_over(dropped)
        for thread in self._threads:
            thread.join()

    def _retry_after_s(self) -> float:
        """How long the queue takes to drain at the pace of the last calls."""
        ahead_s = self._request_s * self.waiting / len(self._threads)
        return min(60.0, max(0.01, ahead_s))

    def _work(self) -> None:
        if self._cpu is not None:
            os.sched_setaffinity(0, {self._cpu})  # of this thread alone
        while True:
            tickets = self._take()
            if tickets is None:
                return
            try:
                self._answer(tickets)
            except Exception:
                log.exception("defect while searching for %s", [t.trace_id for t in tickets])
                for ticket in tickets:
                    ticket.reply = None
                    ticket.error = InternalError(
                        "the node failed on this request",
                        hint="the node's log has the details under this trace id",
                        trace_id=ticket.trace_id or None,
                    )
            self._hand_over(tickets)

    def _take(self) -> list[Ticket] | None:
        """The oldest search and all that may join it; None: the pool is closed."""
        with self._ready:
            while not self._queue:
                if self._closed:
                    return None
                self._ready.wait()
            if self._limits.max_wait_us:
                self._await_company()
                if not self._queue:
                    return [] if not self._closed else None
            return take_together(self._queue, self._limits.max_batch)

    def _await_company(self) -> None:
        until_s = self._queue[0].asked_s + self._limits.max_wait_us / 1e6
        while self._queue and not self._closed:
            waiting = sum(len(t.batch.queries) for t in self._queue)
            left_s = until_s - time.perf_counter()
            if waiting >= self._limits.max_batch or left_s <= 0:
                return
            self._ready.wait(left_s)

    def _answer(self, tickets: list[Ticket]) -> None:
        """Sets the reply or the error of every ticket."""
        alive = [t for t in tickets if _still_wanted(t)]
        if not alive:
            return
        running = Running(alive)
        batches = [t.batch for t in alive]
        started_s = time.perf_counter()
        try:
            result = self._search(alive[0].shard_set, merge(batches), running.cancel)
        except RagrigError as error:
            self._failed(alive, error)
            return
        finally:
            for ticket in alive:
                ticket.running = None
        queued_us = 0
        for ticket, part in zip(alive, split(result, batches), strict=True):
            waited_us = int((started_s - ticket.asked_s) * 1e6)
            queued_us += waited_us
            stats = replace(part.stats, queue_us=waited_us)
            ticket.reply = write_reply(replace(part, stats=stats), ticket.request_id)
        each_s = (time.perf_counter() - started_s) / len(alive)
        self._request_s += _SMOOTHING * (each_s - self._request_s)
        self._counters.searched(len(alive), sum(map(_size, alive)), queued_us, result.stats)

    def _failed(self, alive: list[Ticket], error: RagrigError) -> None:
        if len(alive) == 1 or isinstance(error, (Cancelled, DeadlineExceeded)):
            for ticket in alive:
                ticket.error = copy.copy(error)  # each gets a trace id of its own
            return
        # Whoever is at fault, the others must not suffer: each on its own.
        for ticket in alive:
            self._answer([ticket])

    def _hand_over(self, tickets: list[Ticket]) -> None:
        if tickets and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._delivered, tickets)

    def _delivered(self, tickets: list[Ticket]) -> None:
        self._admitted -= len(tickets)
        for ticket in tickets:
            if not ticket.gone:
                ticket.deliver(ticket)


def take_together(queue: deque[Ticket], max_batch: int) -> list[Ticket]:
    """Takes the oldest ticket and every later one that may share its kernel call.

    Order is kept; those left behind stay where they were.
    """
    first = queue.popleft()
    taken, left, room = [first], [], max_batch - _size(first)
    while queue:
        ticket = queue.popleft()
        if ticket.key == first.key and 0 < _size(ticket) <= room:
            taken.append(ticket)
            room -= _size(ticket)
        else:
            left.append(ticket)
    queue.extend(left)
    return taken


def _size(ticket: Ticket) -> int:
    return len(ticket.batch.queries)


def _still_wanted(ticket: Ticket) -> bool:
    """Sets the error of one that is not."""
    if ticket.gone:
        ticket.error = Cancelled("the caller went away")
    elif ticket.deadline_s is not None and time.monotonic() >= ticket.deadline_s:
        ticket.error = DeadlineExceeded(
            "the deadline passed while the search waited",
            hint="allow more time, or ask for less",
        )
    return ticket.error is None
