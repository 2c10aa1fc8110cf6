"""A rig from start to Ctrl-C: the supervisor with signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from coordinator.supervisor.node import NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.rig import RigConfig

if TYPE_CHECKING:
    from coordinator.supervisor.rolling import Roller

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event, hurry: Callable[[], None]) -> Iterator[None]:
    """The first signal sets ``stop``, every further one calls ``hurry``."""

    def handle() -> None:
        if stop.is_set():
            hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def done_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Runs ``work``, which is cancelled when ``stop`` is set.

    Returns:
        Whether it came to its end; what it raised is raised here.
    """
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait({working})
    return False


async def with_rig(
    rig: RigConfig,
    on_change: Callable[[NodeView], None],
    body: Callable[[Supervisor], Coroutine[Any, Any, None]],
    options: SupervisorOptions | None = None,
) -> bool:
    """Runs ``body`` with a supervisor that is stopped afterwards, whatever happens.

    Args:
        body: starts what it needs; cancelled when a signal comes.

    Returns:
        Whether ``body`` came to its end; False: a signal stopped it.

    Raises:
        Conflict: a rig already runs on this data directory.
        RagrigError: what ``body`` raised.
    """
    stop = asyncio.Event()
    supervisor = Supervisor(rig, on_change, options)
    with stop_on_signals(stop, supervisor.hurry):
        async with supervisor:
            return await done_before(stop, body(supervisor))


async def serve_rig(
    rig: RigConfig,
    on_change: Callable[[NodeView], None],
    on_up: Callable[[Supervisor, Readiness], None],
    options: SupervisorOptions | None = None,
    base: RigConfig | None = None,
) -> None:
    """Brings the rig up, calls ``on_up``, and supervises until a signal comes.

    Args:
        base: the rig without its plan, from which a better plan would be deployed.

    Raises:
        Conflict: a rig already runs on this data directory.
        Unavailable: a port is taken, or a node cannot be started.
    """

    async def serve(supervisor: Supervisor) -> None:
        on_up(supervisor, await supervisor.start())
        roller = _roller(supervisor, options, base)
        if roller is None:
            await supervisor.watch()
            return
        async with roller:
            await supervisor.watch()

    await with_rig(rig, on_change, serve, options)


def _roller(
    supervisor: Supervisor, options: SupervisorOptions | None, base: RigConfig | None
) -> Roller | None:
    if options is None or options.replan is None or base is None:
        return None
    from coordinator.supervisor.rolling import Roller

    return Roller(supervisor, options.replan, base, sorted(os.sched_getaffinity(0)))
