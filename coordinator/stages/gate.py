"""A bounded queue in front of work that streams and so cannot be batched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.metrics import Metrics
from ragschema.errors import DeadlineExceeded, Overloaded
from ragschema.rig import BatchConfig
from ragschema.types import CallContext


class Gate:
    """Lets ``max_concurrent`` in, ``max_queue`` wait in order of arrival, refuses more."""

    def __init__(self, config: BatchConfig, name: str, metrics: Metrics) -> None:
        self._config = config
        self._name = name
        self._slots = asyncio.Semaphore(config.max_concurrent)
        # Slots that are to go once those who hold them leave.
        self._surplus = 0
        self._waiting = 0
        self._inside = 0
        self._metrics = metrics.batcher(name, lambda: self._waiting, lambda: self._inside)

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def inside(self) -> int:
        return self._inside

    @asynccontextmanager
    async def enter(self, context: CallContext) -> AsyncIterator[float]:
        """Holds a slot; gives the seconds spent waiting for it.

        Raises:
            Overloaded: too many wait already.
            DeadlineExceeded: no slot came free in time.
        """
        started_s = time.perf_counter()
        await self._take(context)
        self._inside += 1
        self._metrics.size.observe(1)
        try:
            yield time.perf_counter() - started_s
        finally:
            self._inside -= 1
            if self._surplus:
                self._surplus -= 1
            else:
                self._slots.release()

    async def configure(self, config: BatchConfig) -> None:
        """Changes how many are let in and may wait; who is inside stays."""
        more = config.max_concurrent - self._config.max_concurrent
        self._config = config
        for _ in range(more):
            if self._surplus:
                self._surplus -= 1
            else:
                self._slots.release()
        self._surplus += max(0, -more)
        while self._surplus and not self._slots.locked():
            self._surplus -= 1
            await self._slots.acquire()

    async def _take(self, context: CallContext) -> None:
        if self._slots.locked() and self._waiting >= self._config.max_queue:
            self._metrics.refused.inc()
            raise Overloaded(
                f"{self._waiting} requests already wait for the {self._name} stage",
                retry_after_s=2.0,
                hint="send fewer requests at once, or try again later",
                trace_id=context.trace_id,
            )
        left_s = context.remaining_s()
        self._waiting += 1
        try:
            async with asyncio.timeout(left_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the deadline passed in the queue of the {self._name} stage",
                hint="allow more time with timeout_ms",
                trace_id=context.trace_id,
            ) from error
        finally:
            self._waiting -= 1
