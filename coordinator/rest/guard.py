"""Work stops when its client leaves or its deadline passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from starlette.types import Receive

from ragschema.errors import Cancelled, DeadlineExceeded
from ragschema.types import CallContext

#: Most requests are answered sooner, also under load, and then no task has to be
#: made for them; work that nobody waits for any more goes on for this long.
_WATCH_AFTER_S = 0.1
#: Time for the pipeline to report the deadline itself, in better words.
_DEADLINE_GRACE_S = 1.0


class Guard:
    """Cancels the task in its ``with`` block; the block then raises a typed error.

    Args:
        receive: the request's ASGI receive, its body already read.
        heartbeat: called every ``heartbeat_s`` while the block runs.

    Raises:
        Cancelled: the client left.
        DeadlineExceeded: the deadline passed and the work did not notice.
    """

    __slots__ = (
        "_context",
        "_error",
        "_heartbeat",
        "_heartbeat_s",
        "_receive",
        "_task",
        "_timer",
        "_watcher",
    )

    def __init__(
        self,
        receive: Receive,
        context: CallContext,
        heartbeat: Callable[[], Awaitable[None]] | None = None,
        heartbeat_s: float = 15.0,
    ) -> None:
        self._receive = receive
        self._context = context
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._error: Cancelled | DeadlineExceeded | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Guard:
        task = asyncio.current_task()
        assert task is not None, "a guard lives inside a request's task"
        self._task = task
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_WATCH_AFTER_S, self._start_watching)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._error is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise self._error from error

    def _start_watching(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(self._left_s() + _DEADLINE_GRACE_S):
                await self._until_disconnect()
        except TimeoutError:
            self._error = DeadlineExceeded(
                "the deadline passed before the work was done",
                hint="allow more time with timeout_ms, or ask for less",
            )
        else:
            self._error = Cancelled("the client closed the connection")
        self._task.cancel()

    async def _until_disconnect(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s if self._heartbeat else None):
                    message = await self._receive()
            except TimeoutError:
                assert self._heartbeat is not None, "only a heartbeat has a time-out"
                await self._heartbeat()
                continue
            if message["type"] == "http.disconnect":
                return

    def _left_s(self) -> float:
        return max(0.0, self._context.deadline_s - time.monotonic())
