"""Requests that arrive together share one call.

A batcher holds a bounded queue in front of one stage. With ``max_wait_ms`` 0 a
request is sent as soon as a slot is free and the event loop brings no further
ones, and what queued behind running calls forms the next batch. A request
costs a future and a timer; only a batch costs a task.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import islice
from typing import Generic

from coordinator.batch import Batched, Call, Member, Req, Res, shared_context
from coordinator.metrics import Metrics
from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    RagrigError,
    Unavailable,
)
from ragschema.rig import BatchConfig
from ragschema.types import CallContext

log = logging.getLogger(__name__)

#: Turns of the event loop without a new request before a batch is sent: with
#: no call under way, and with one that keeps the nodes busy meanwhile. A turn
#: costs microseconds when nothing else is to be done, and when there is, more
#: requests are likely on their way through it.
_QUIET_TURNS_IDLE = 2
_QUIET_TURNS_BUSY = 6
#: Turns may be long when the loop has much else to do; nobody waits for more.
_MOST_GATHERING_S = 0.01

Run = Callable[[Sequence[Req], CallContext], Awaitable[Sequence[Res | RagrigError]]]


class Batcher(Generic[Req, Res]):
    """Gathers requests into calls of ``run``.

    Args:
        run: gives one result or one error per request, in their order. Its
            context ends with the latest deadline of its members.
        name: the stage, for messages and metrics.
        key: requests with different keys never share a call. Keys take turns,
            so that a busy one does not starve the others.
    """

    def __init__(
        self,
        run: Run[Req, Res],
        config: BatchConfig,
        name: str,
        metrics: Metrics,
        key: Callable[[Req], Hashable] = lambda _: None,
    ) -> None:
        self._run = run
        self._config = config
        self._name = name
        self._key = key
        self._metrics = metrics.batcher(name, lambda: self._waiting, lambda: len(self._calls))
        # Per key the waiting members in order of arrival; a dict is an
        # ordered set from which one can be dropped at no cost.
        self._groups: dict[Hashable, dict[Member[Req, Res], None]] = {}
        self._waiting = 0
        self._calls: set[Call[Req, Res]] = set()
        self._wake: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._call_s = 0.01
        self._quiet_turns = 0
        self._gather_until_s = 0.0
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._waiting

    @property
    def running(self) -> int:
        """Calls under way."""
        return len(self._calls)

    async def submit(self, request: Req, context: CallContext) -> Batched[Res]:
        """The request's own result, out of a shared call.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the request's own deadline passed.
            Unavailable: the batcher is closed.
            RagrigError: what ``run`` gave or raised.
        """
        left_s = context.remaining_s()
        self._admit(context)
        loop = asyncio.get_running_loop()
        member = Member[Req, Res](request, context, self._key(request), loop.create_future())
        member.timer = loop.call_later(left_s, self._expire, member)
        group = self._groups.get(member.key)
        if group is None:
            group = self._groups[member.key] = {}
        group[member] = None
        self._waiting += 1
        self._quiet_turns = 0
        self._schedule()
        try:
            return await member.future
        finally:
            member.timer.cancel()
            self._leave(member)

    def configure(self, config: BatchConfig) -> None:
        """Changes sizes and waits from now on; requests that wait keep their place.

        Calls under way are left alone, also where fewer are allowed now.
        """
        self._config = config
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._groups:
            self._schedule()

    async def close(self, drain_s: float = 5.0) -> None:
        """Refuses new requests, lets accepted ones end, then fails the rest."""
        self._closed = True
        self._flush()
        until_s = time.monotonic() + drain_s
        while self._calls and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.wait(self._tasks(), timeout=left_s)
        gone = Unavailable(f"the {self._name} stage was shut down", hint="try again")
        for group in list(self._groups.values()):
            for member in list(group):
                self._fail(member, gone)
                self._leave(member)
        for call in self._calls:
            self._fail_all(call, gone)
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for handle in (self._wake, self._alarm):
            if handle is not None:
                handle.cancel()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [call.task for call in self._calls if call.task is not None]

    def _admit(self, context: CallContext) -> None:
        if self._closed:
            raise Unavailable(f"the {self._name} stage is shutting down", hint="try again")
        config = self._config
        # What free slots will take at the next turn of the loop does not wait.
        free = max(0, config.max_concurrent - len(self._calls)) * config.max_batch
        if self._waiting >= config.max_queue + free:
            self._metrics.refused.inc()
            calls = self._waiting / (config.max_batch * config.max_concurrent)
            raise Overloaded(
                f"{self._waiting} requests already wait for the {self._name} stage",
                retry_after_s=min(30.0, max(1.0, calls * self._call_s)),
                hint="send fewer requests at once, or try again later",
                trace_id=context.trace_id,
            )

    def _leave(self, member: Member[Req, Res]) -> None:
        """Takes a member out of the queue or out of its call, wherever it is."""
        call = member.call
        if call is not None:
            member.call = None
            call.present -= 1
            if call.present == 0 and call.task is not None:
                call.task.cancel()
            return
        group = self._groups.get(member.key)
        if group is not None and member in group:
            del group[member]
            self._waiting -= 1
            if not group:
                del self._groups[member.key]

    def _expire(self, member: Member[Req, Res]) -> None:
        what = "in the queue of" if member.call is None else "in"
        error = DeadlineExceeded(
            f"the deadline passed {what} the {self._name} stage",
            hint="allow more time with timeout_ms, or ask for less",
        )
        self._fail(member, error)
        self._leave(member)

    def _fail(self, member: Member[Req, Res], error: RagrigError) -> None:
        if member.future.done():
            return
        # Members fail together but each error goes its own way with its own
        # trace id, so none may share the instance.
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        own.trace_id = member.context.trace_id
        member.future.set_exception(own)

    def _schedule(self) -> None:
        """Sends what is queued, once the event loop brings no more of it."""
        if self._wake is None and len(self._calls) < self._config.max_concurrent:
            self._quiet_turns = 0
            self._gather_until_s = time.perf_counter() + _MOST_GATHERING_S
            self._wake = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._quiet_turns += 1
        enough = _QUIET_TURNS_BUSY if self._calls else _QUIET_TURNS_IDLE
        if (
            self._quiet_turns > enough
            or self._waiting >= self._config.max_batch
            or time.perf_counter() >= self._gather_until_s
        ):
            self._flush()
        else:
            self._wake = asyncio.get_running_loop().call_soon(self._turn)

    def _flush(self) -> None:
        self._wake = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._groups and len(self._calls) < self._config.max_concurrent:
            key = self._next_key()
            if key is None:
                return
            self._start(key)

    def _next_key(self) -> Hashable:
        """The first group in turn that is full or old enough, as a one-tuple.

        Sets the alarm when every group still waits for company.
        """
        wait_s = 0.0 if self._closed else self._config.max_wait_ms / 1e3
        if wait_s == 0.0:
            return (next(iter(self._groups)),)
        now_s = time.perf_counter()
        soonest_s = wait_s
        for key, group in self._groups.items():
            left_s = next(iter(group)).enqueued_s + wait_s - now_s
            if left_s <= 0 or len(group) >= self._config.max_batch:
                return (key,)
            soonest_s = min(soonest_s, left_s)
        self._alarm = asyncio.get_running_loop().call_later(soonest_s, self._flush)
        return None

    def _start(self, turn: Hashable) -> None:
        assert isinstance(turn, tuple)
        key = turn[0]
        group = self._groups.pop(key)
        members = list(islice(group, self._config.max_batch))
        if len(members) < len(group):
            for member in members:
                del group[member]
            self._groups[key] = group  # to the end: the other keys come first
        self._waiting -= len(members)
        self._metrics.size.observe(len(members))
        call = Call(members)
        for member in members:
            member.call = call
        self._calls.add(call)
        call.task = asyncio.get_running_loop().create_task(self._execute(call))
        # Not in a finally of the coroutine: a task that is cancelled before
        # its first step never enters it, and the slot would be lost.
        call.task.add_done_callback(lambda _: self._finish(call))

    async def _execute(self, call: Call[Req, Res]) -> None:
        started_s = time.perf_counter()
        try:
            results = await self._run(
                [m.request for m in call.members], shared_context(call.members)
            )
            assert len(results) == len(call.members), f"{self._name} lost a result"
            self._deliver(call, results, started_s)
            self._call_s += 0.2 * (time.perf_counter() - started_s - self._call_s)
        except RagrigError as error:
            self._fail_all(call, error)
        except Exception:
            log.exception("defect in the %s stage", self._name)
            self._fail_all(call, InternalError(f"the {self._name} stage failed on this request"))

    def _finish(self, call: Call[Req, Res]) -> None:
        self._calls.discard(call)
        self._fail_all(call, Cancelled(f"the call of the {self._name} stage was cancelled"))
        if self._groups and self._closed:
            self._flush()
        elif self._groups:
            self._schedule()

    def _deliver(
        self, call: Call[Req, Res], results: Sequence[Res | RagrigError], started_s: float
    ) -> None:
        ran_s = time.perf_counter() - started_s
        for member, result in zip(call.members, results, strict=True):
            member.call = None
            if isinstance(result, RagrigError):
                self._fail(member, result)
            elif not member.future.done():
                queued_s = started_s - member.enqueued_s
                member.future.set_result(Batched(result, queued_s, ran_s))

    def _fail_all(self, call: Call[Req, Res], error: RagrigError) -> None:
        for member in call.members:
            member.call = None
            self._fail(member, error)
