"""Bounded admission: some run, some wait in order, the rest are refused."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from ragschema.errors import Overloaded


class Admission:
    """Slots for requests of one kind; first come, first served.

    Args:
        what: what is admitted, plural, for messages.
        max_running: slots.
        max_waiting: requests that may wait for a slot.
    """

    def __init__(self, what: str, max_running: int, max_waiting: int) -> None:
        self._what = what
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Holds a slot; yields the microseconds spent waiting for it.

        Raises:
            Overloaded: all slots are taken and the queue is full.
        """
        arrived_s = time.monotonic()
        await self._enter()
        try:
            yield int((time.monotonic() - arrived_s) * 1e6)
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._running < self._max_running and not self._waiters:
            self._running += 1
            return
        if len(self._waiters) >= self._max_waiting:
            raise Overloaded(
                f"{self._running} {self._what} run and {len(self._waiters)} wait",
                hint="try again later, or raise max_running or max_waiting",
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # the slot had just been handed over
            else:
                with contextlib.suppress(ValueError):  # a leaver may have dropped it already
                    self._waiters.remove(turn)
            raise

    def _leave(self) -> None:
        """Frees a slot, or hands it to the first who waits."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1
