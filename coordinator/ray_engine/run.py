"""A rig on a Ray cluster from start to Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from coordinator.ray_engine.deployment import RayOptions
from coordinator.ray_engine.engine import RayEngine
from coordinator.ray_engine.library import connected
from coordinator.supervisor.node import NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.run import stop_on_signals
from coordinator.supervisor.supervisor import SupervisorOptions
from ragschema.rig import RigConfig


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
    with connected(address) as ray:
        return asyncio.run(_with_engine(ray, rig, on_change, body, options, supervision))


async def _with_engine(
    ray: Any,
    rig: RigConfig,
    on_change: Callable[[NodeView], None],
    body: Callable[[RayEngine], Coroutine[Any, Any, None]],
    options: RayOptions | None,
    supervision: SupervisorOptions | None,
) -> bool:
    stop = asyncio.Event()
    engine = RayEngine(ray, rig, on_change, options, supervision)
    with stop_on_signals(stop, engine.hurry):
        async with engine:
            work = asyncio.ensure_future(body(engine))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if work.done():
                work.result()
                return True
            work.cancel()
            await asyncio.wait({work})
            return False


def serve_on_ray(
    rig: RigConfig,
    address: str | None,
    on_change: Callable[[NodeView], None],
    on_up: Callable[[RayEngine, Readiness], None],
    supervision: SupervisorOptions | None = None,
) -> None:
    """Brings the rig up, calls ``on_up``, and supervises until a signal comes.

    Raises:
        InvalidInput: Ray is not installed.
        IncompatibleRequest: the cluster has not what the rig needs; nothing was started.
        Unavailable: no cluster answers, a port is taken, or a node cannot be started.
    """

    async def serve(engine: RayEngine) -> None:
        on_up(engine, await engine.start())
        await engine.watch()

    run_on_ray(rig, address, on_change, serve, supervision=supervision)
