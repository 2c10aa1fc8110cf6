"""A bounded pool of search threads whose work can be cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ragschema.errors import Cancelled, DeadlineExceeded, Overloaded
from retrieval_node.backends.base import Checkpoint

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Timed(Generic[Answer]):
    """An answer and how long its work waited for a thread."""

    answer: Answer
    queue_us: int


class SearchPool:
    """Runs blocking work on ``threads`` threads; at most ``max_waiting`` queue.

    ``run`` belongs to one event loop; counters are read by the same loop.
    """

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._threads = threads
        self._max_waiting = max_waiting
        self._admitted = 0

    @property
    def running(self) -> int:
        return min(self._admitted, self._threads)

    @property
    def waiting(self) -> int:
        return self._admitted - self.running

    async def run(
        self, work: Callable[[Checkpoint], Answer], deadline_s: float | None
    ) -> Timed[Answer]:
        """Runs ``work`` on a thread; its checkpoint stops it when nobody waits for it.

        Args:
            deadline_s: on ``time.monotonic()``'s clock; None for none.

        Raises:
            Overloaded: too many are waiting.
            DeadlineExceeded: the deadline passed before or while it ran.
        """
        if self._admitted >= self._threads + self._max_waiting:
            raise Overloaded(
                f"{self._max_waiting} searches are waiting already",
                retry_after_s=0.5,
                hint="retry later, or start the node with a larger --max-waiting",
            )
        gone = threading.Event()
        asked = time.perf_counter()

        def checkpoint() -> None:
            if gone.is_set():
                raise Cancelled("the caller went away")
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise DeadlineExceeded(
                    "the deadline passed before the search was done",
                    hint="allow more time, or ask for less",
                )

        def job() -> Timed[Answer]:
            waited = time.perf_counter() - asked
            checkpoint()
            return Timed(work(checkpoint), int(waited * 1e6))

        future = self._executor.submit(job)
        self._admitted += 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._release(loop))
        try:
            return await asyncio.wrap_future(future)
        finally:
            gone.set()

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._left)

    def _left(self) -> None:
        self._admitted -= 1

    def close(self) -> None:
        """Drops what waits and lets what runs finish."""
        self._executor.shutdown(wait=True, cancel_futures=True)
