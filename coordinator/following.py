"""Follows the rig file while the coordinator runs: nodes come, go and move.

Whoever supervises the nodes writes a new file in one step. What a rig says of nodes, batches
and limits is taken over at once; its collections and REST address are those of the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ragschema.errors import RagrigError
from ragschema.rig import CoordinatorConfig, RigConfig, load_rig

if TYPE_CHECKING:
    from coordinator.runtime import Runtime

log = logging.getLogger(__name__)

_PERIOD_S: Final = 0.2
Stamp = tuple[int, int, int]


@contextlib.asynccontextmanager
async def following(
    runtime: Runtime, rig_file: Path, period_s: float = _PERIOD_S
) -> AsyncIterator[None]:
    """Follows the file inside the block; what cannot be followed is logged and left out."""
    task = asyncio.get_running_loop().create_task(_follow(runtime, rig_file, period_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(runtime: Runtime, rig_file: Path, period_s: float) -> None:
    seen: Stamp | None = None
    told = runtime.rig.coordinator
    while True:
        stamp = await asyncio.to_thread(_stamp, rig_file)
        if stamp is not None and stamp != seen:
            seen = stamp
            told = await _take(runtime, rig_file, told)
        await asyncio.sleep(period_s)


async def _take(runtime: Runtime, rig_file: Path, told: CoordinatorConfig) -> CoordinatorConfig:
    """Makes the runtime what the file says; gives the settings that it says.

    Those are taken over when the file's change, and not when they differ from what is in
    use: re-planning changes that too.
    """
    try:
        found = await asyncio.to_thread(load_rig, rig_file)
        wanted = _taken_over(found, runtime.rig)
        if wanted != runtime.rig:
            await runtime.follow(wanted)
            log.info("following the nodes of %s", rig_file)
        own = found.coordinator
        if (own.stages, own.limits) != (told.stages, told.limits):
            await runtime.configure(own)
        return own
    except RagrigError as error:
        log.error("the nodes stay as they are: %s", error)
    except Exception:
        log.exception("defect while following %s; the nodes stay as they are", rig_file)
    return told


def _taken_over(found: RigConfig, now: RigConfig) -> RigConfig:
    """What may change while a coordinator runs."""
    return replace(
        now,
        replicas=found.replicas,
        llm_nodes=found.llm_nodes,
        retrieval_nodes=found.retrieval_nodes,
    )


def _stamp(path: Path) -> Stamp | None:
    """Differs after every replacement; None while there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
