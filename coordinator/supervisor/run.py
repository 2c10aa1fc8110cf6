"""A rig from start to Ctrl-C: the supervisor with signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from coordinator.supervisor.node import NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.rig import RigConfig

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


async def run_rig(
    rig: RigConfig,
    on_change: Callable[[NodeView], None],
    on_up: Callable[[Supervisor, Readiness], None],
    options: SupervisorOptions | None = None,
) -> None:
    """Brings the rig up, calls ``on_up``, and supervises until a signal comes.

    Raises:
        Conflict: a rig already runs on this data directory.
        Unavailable: a port is taken, or a node cannot be started.
    """
    stop = asyncio.Event()
    supervisor = Supervisor(rig, on_change, options)
    with stop_on_signals(stop, supervisor.hurry):
        async with supervisor:
            starting = asyncio.ensure_future(supervisor.start())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
                return
            on_up(supervisor, starting.result())
            await supervisor.run_until(stop)
