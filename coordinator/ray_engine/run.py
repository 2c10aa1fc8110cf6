"""A rig on a Ray cluster from start to Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from coordinator.ray_engine.deployment import RayOptions
from coordinator.ray_engine.engine import RayEngine
from coordinator.ray_engine.library import cards_here, connected
from coordinator.supervisor.node import NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.run import done_before, stop_on_signals
from coordinator.supervisor.supervisor import SupervisorOptions
from ragschema.errors import DeadlineExceeded, InvalidInput, NotFound, RagrigError, Unavailable
from ragschema.rig import RigConfig

_LOOK_S: Final = 0.5
_LOOPBACK: Final = "127.0.0.1"
Stamp = tuple[int, int, int]


def run_on_ray(
    rig: RigConfig,
    address: str | None,
    on_change: Callable[[NodeView], None],
    body: Callable[[RayEngine], Coroutine[Any, Any, None]],
    options: RayOptions | None = None,
    supervision: SupervisorOptions | None = None,
) -> bool:
    """Runs ``body`` with an engine that is stopped afterwards, whatever happens.

    Args:
        address: of the cluster's head; None: see ``connected``.
        body: starts what it needs; cancelled when a signal comes.

    Returns:
        Whether ``body`` came to its end; False: a signal stopped it.

    Raises:
        InvalidInput: Ray is not installed.
        Unavailable: no cluster answers.
        RagrigError: what ``body`` raised.
    """
    with connected(address, cards_here()) as found:
        options = options or RayOptions()
        if found.alone:
            # Nodes neither encrypt nor ask for keys: nobody else need reach them.
            options = replace(options, host=_LOOPBACK)
        return asyncio.run(_with_engine(found.ray, rig, on_change, body, options, supervision))


async def _with_engine(
    ray: Any,
    rig: RigConfig,
    on_change: Callable[[NodeView], None],
    body: Callable[[RayEngine], Coroutine[Any, Any, None]],
    options: RayOptions,
    supervision: SupervisorOptions | None,
) -> bool:
    stop = asyncio.Event()
    engine = RayEngine(ray, rig, on_change, options, supervision)
    with stop_on_signals(stop, engine.hurry):
        async with engine:
            return await done_before(stop, body(engine))


@dataclass(frozen=True)
class Watched:
    """A file that says what to run.

    Attributes:
        rig: reads it; may raise RagrigError.
        moved: told when what it says after a change is what runs.
        kept: told why a change of it is not followed.
    """

    path: Path
    rig: Callable[[], RigConfig]
    moved: Callable[[RayEngine], None]
    kept: Callable[[RagrigError], None]


def serve_on_ray(
    rig: RigConfig,
    address: str | None,
    on_change: Callable[[NodeView], None],
    on_up: Callable[[RayEngine, Readiness], None],
    supervision: SupervisorOptions | None = None,
    watched: Watched | None = None,
) -> None:
    """Brings the rig up, calls ``on_up``, and supervises until a signal comes.

    Args:
        watched: what it says after a change is run in place of ``rig``.

    Raises:
        InvalidInput: Ray is not installed.
        IncompatibleRequest: the cluster has not what the rig needs; nothing was started.
        Unavailable: no cluster answers, a port is taken, or a node cannot be started.
    """

    async def serve(engine: RayEngine) -> None:
        stamp = None if watched is None else _stamp(watched.path)
        on_up(engine, await engine.start())
        watching = asyncio.ensure_future(engine.watch())
        following = asyncio.ensure_future(_follow(engine, watched, stamp))
        try:
            await asyncio.wait({watching, following}, return_when=asyncio.FIRST_COMPLETED)
            await (following if following.done() else watching)
        finally:
            for task in (watching, following):
                task.cancel()
            await asyncio.gather(watching, following, return_exceptions=True)

    run_on_ray(rig, address, on_change, serve, supervision=supervision)


async def _follow(engine: RayEngine, watched: Watched | None, stamp: Stamp | None) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        if watched is None:
            continue
        found = await asyncio.to_thread(_stamp, watched.path)
        if found is None or found == stamp:
            continue
        stamp = found
        try:
            await engine.move_to(await asyncio.to_thread(watched.rig))
        except (InvalidInput, NotFound, Unavailable, DeadlineExceeded) as error:
            watched.kept(error)
        else:
            watched.moved(engine)


def _stamp(path: Path) -> Stamp | None:
    """Differs after every change; None while there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
