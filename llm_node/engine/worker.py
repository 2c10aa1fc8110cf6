"""The engine's turns on its device, and asyncio queues with its events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from llm_node.device.scheduler import Device, Lane, once
from llm_node.engine.engine import Engine
from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, EngineRequest, EngineStats, StepEvent
from llm_node.libraries import set_torch_threads
from ragschema.errors import Conflict, InternalError, Overloaded, Unavailable
from ragschema.types import F32, I32

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_Queue: TypeAlias = "asyncio.Queue[StepEvent | Exception]"
#: Between two looks for free blocks when nothing else can be done.
_STALLED_S = 0.002


@dataclass(frozen=True)
class _Command:
    """Something to do to the engine between two steps, and who waits for it."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]


class EngineWorker:
    """The engine's operations for one event loop; start() and close() once each.

    All of the engine's work happens in its device's thread, so the engine needs no locks:
    commands wait in a queue until its next turn, which obeys them and runs a step.

    Args:
        max_waiting: live requests; more are refused.
        lane: whose turns it gets; None: a device of its own.
    """

    def __init__(self, engine: Engine, max_waiting: int = 1024, lane: Lane | None = None) -> None:
        self.engine = engine
        self._max_live = max_waiting
        self._own: Device | None = None
        if lane is None:
            self._own = Device("engine")
            lane = self._own.lane("engine")
        self._lane = lane
        self._commands: deque[_Command] = deque()
        self._lock = threading.Lock()
        self._asked = False
        self._closing = False
        self._broken: str | None = None
        self._streams: dict[str, _Queue] = {}
        #: The same, as the engine's thread knows it: only admitted requests.
        self._routes: dict[str, _Queue] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Takes part from now on; call in the event loop that will use it."""
        self._loop = asyncio.get_running_loop()
        if self._own is not None:
            self._own.start()
        self._lane.ask(self._prepare)

    async def close(self) -> None:
        """Ends every request, after the running step."""
        with self._lock:
            closed, self._closing = self._closing, True
        if closed or self._loop is None:
            return
        with contextlib.suppress(Unavailable):  # the device was closed first
            await self._lane.run(once(_nothing))
        if self._own is not None:
            await self._own.close()
        if self._timer is not None:
            self._timer.cancel()
        for command in self._commands:
            _fail(command.done, Unavailable("the engine was closed"))
        self._fail_streams(Unavailable("the engine was closed"))

    def stream(self, request: EngineRequest) -> AsyncGenerator[StepEvent, None]:
        """The request's events up to the last ``Ended``; closing it cancels.

        Raises:
            Overloaded: too many requests are live.
            InvalidInput, PayloadTooLarge, Conflict: the engine refuses the request.
            Unavailable, InternalError: the engine was closed or broke.
        """
        return self._stream(request, request.sampling.n, lambda: self.engine.add(request))

    def stream_imported(
        self, request: EngineRequest, snapshot: KvSnapshot, known: Mapping[int, Sequence[int]]
    ) -> AsyncGenerator[StepEvent, None]:
        """The same for ``Engine.import_kv``."""
        return self._stream(
            request, len(known), lambda: self.engine.import_kv(request, snapshot, known)
        )

    async def _stream(
        self, request: EngineRequest, left: int, admit: Callable[[], None]
    ) -> AsyncGenerator[StepEvent, None]:
        key = request.request_id
        if key in self._streams:
            raise Conflict(f"request {key!r} is still running", field="request_id")
        if len(self._streams) >= self._max_live:
            raise Overloaded(f"{self._max_live} requests are under way", hint="try again later")
        # Bounded by the request's own tokens.
        queue: _Queue = asyncio.Queue()
        self._streams[key] = queue
        try:
            await self._call(lambda: self._admit(key, queue, admit))
            while left:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                left -= isinstance(event, Ended)
                yield event
        finally:
            del self._streams[key]
            self._post(lambda: self._leave(key, queue))

    def _admit(self, key: str, queue: _Queue, admit: Callable[[], None]) -> None:
        admit()
        self._routes[key] = queue

    def _leave(self, key: str, queue: _Queue) -> None:
        """Nobody listens any more; a later request of that id must not hear of this one."""
        if self._routes.get(key) is queue:
            self.engine.cancel(key)
            self._deliver(self.engine.take_events())
            del self._routes[key]

    async def cancel(self, request_id: str, index: int | None = None) -> None:
        """See Engine.cancel."""
        await self._call(lambda: self.engine.cancel(request_id, index))

    async def resume(self, request_id: str, extra_ids: Sequence[int], index: int = 0) -> None:
        """See Engine.resume."""
        await self._call(lambda: self.engine.resume(request_id, extra_ids, index))

    async def resume_mixed(
        self,
        request_id: str,
        neighbour_tokens: I32,
        neighbour_distances: F32,
        lam: float,
        temperature: float,
        index: int = 0,
    ) -> None:
        """See Engine.resume_mixed."""
        await self._call(
            lambda: self.engine.resume_mixed(
                request_id, neighbour_tokens, neighbour_distances, lam, temperature, index
            )
        )

    async def export_kv(self, request_id: str, index: int = 0) -> KvSnapshot:
        """See Engine.export_kv."""
        return await self._call(lambda: self.engine.export_kv(request_id, index))

    async def stats(self) -> EngineStats:
        """See Engine.stats."""
        return await self._call(self.engine.stats)

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Runs something in the engine's thread, between two steps."""
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._enqueue(_Command(work, done))
        return await done

    def _post(self, work: Callable[[], None]) -> None:
        """The same without waiting; a closed engine has nothing left to do."""
        assert self._loop is not None
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        with contextlib.suppress(Unavailable, InternalError):
            self._enqueue(_Command(work, done))

    def _enqueue(self, command: _Command) -> None:
        with self._lock:
            if self._broken is not None:
                raise InternalError(self._broken)
            if self._closing or self._loop is None:
                raise Unavailable("the engine is not running", hint="call start() first")
            self._commands.append(command)
        self._ask()

    def _ask(self) -> None:
        """Asks for a turn unless one is asked for already."""
        with self._lock:
            if self._asked or self._closing or self._broken is not None:
                return
            self._asked = True
        self._lane.ask(self._turn)

    def _prepare(self) -> bool:
        """The device's thread, before the first turn."""
        threads = self.engine.config.threads
        if threads is not None:
            set_torch_threads(threads)
        return False

    def _turn(self) -> bool:
        """The device's thread: commands and one step; whether another is due at once."""
        if self._closing:
            return False
        try:
            self._obey()
            self._deliver(self.engine.step())
        except Exception as error:  # noqa: BLE001 - a failed step leaves an engine nobody can trust
            self._break(error)
            return False
        busy = self.engine.has_work and not self.engine.stalled
        with self._lock:
            again = self._asked = bool(busy or self._commands)
        if not again:
            self._tell(self._look_later, self._next_look_s())
        return again

    def _break(self, error: Exception) -> None:
        _LOG.exception("the engine stopped")
        with self._lock:
            self._broken = f"the engine stopped: {error}"
        self._tell(self._fail_streams, InternalError(self._broken))
        for command in self._commands:
            self._tell(_fail, command.done, Unavailable("the engine was closed"))

    def _next_look_s(self) -> float | None:
        """Seconds until there may be something to do though nobody says so."""
        if self.engine.stalled and self.engine.has_work:
            return _STALLED_S  # everything waits for blocks that paused sequences hold
        deadline_s = self.engine.next_deadline_s()
        return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())

    def _look_later(self, left_s: float | None) -> None:
        """The event loop: the last turn decides when to look again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if left_s is not None and not self._closing:
            assert self._loop is not None
            self._timer = self._loop.call_later(left_s, self._ask)

    def _obey(self) -> None:
        while self._commands:
            command = self._commands.popleft()
            try:
                result = command.work()
            except Exception as error:  # noqa: BLE001 - it belongs to the caller
                self._tell(_fail, command.done, error)
            else:
                self._tell(_succeed, command.done, result)

    def _deliver(self, events: list[StepEvent]) -> None:
        """Hands events to the queues of their requests, all in one call of the loop."""
        routed = [
            (self._routes[event.request_id], event)
            for event in events
            if event.request_id in self._routes
        ]
        if routed:
            self._tell(_dispatch, routed)

    def _tell(self, work: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop ended before the node closed
            self._loop.call_soon_threadsafe(work, *args)

    def _fail_streams(self, error: Exception) -> None:
        for queue in self._streams.values():
            queue.put_nowait(error)


def _nothing() -> None:
    """A unit behind which no earlier one runs."""


def _dispatch(routed: list[tuple[_Queue, StepEvent]]) -> None:
    for queue, event in routed:
        queue.put_nowait(event)


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
