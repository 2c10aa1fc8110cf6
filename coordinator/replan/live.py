"""The running coordinator as re-planning sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from coordinator.deploy import coordinator_for
from coordinator.replan.loop import Replanner
from coordinator.replan.observe import Totals
from coordinator.replan.settings import ReplanSettings
from coordinator.replan.view import ReplanCollector
from coordinator.runtime import Runtime
from ragschema.errors import IncompatibleRequest
from ragschema.planner.plan_file import StoredPlan


@asynccontextmanager
async def replanned(runtime: Runtime, settings: ReplanSettings | None) -> AsyncIterator[None]:
    """Watches a runtime meanwhile; None: nobody does.

    Raises:
        NotFound, InvalidInput: of the plan or the schema.
    """
    if settings is None:
        yield
        return
    replanner = Replanner(settings, LiveRig(runtime))
    runtime.replanner = replanner
    runtime.metrics.registry.register(ReplanCollector(lambda: replanner.view))
    replanner.start()
    try:
        yield
    finally:
        await replanner.close()


_WRITING = frozenset({"generate", "decode"})


class LiveRig:
    """Changes one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def totals(self) -> Totals:
        """What came and was answered since the start."""
        metrics = self._runtime.metrics
        return metrics.workload.totals(*metrics.engine_work.prefix_tokens())

    def most_running(self) -> int:
        """Of all nodes that write answers."""
        nodes = self._runtime.rig.llm_nodes
        return sum(node.max_running for node in nodes if _WRITING & set(node.roles))

    def changes(self, plan: StoredPlan) -> tuple[str, ...]:
        """One line per setting, such as ``retrieve.max_batch 1 -> 16``."""
        own = self._runtime.rig.coordinator
        return tuple(_differences("", asdict(own), asdict(coordinator_for(plan, own))))

    async def use_batches(self, plan: StoredPlan) -> None:
        """The running batchers and gates, and the edge's limit, from the next request on."""
        own = self._runtime.rig.coordinator
        await self._runtime.configure(coordinator_for(plan, own))

    async def use_processes(self, plan: Path) -> None:
        raise IncompatibleRequest(
            "other processes are not started here",
            field="replan",
            hint=f"stop the rig and start it with --plan {plan}",
        )


def _differences(where: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in new:
            yield from _differences(f"{where}.{key}" if where else key, old.get(key), new[key])
    elif old != new:
        yield f"{where.removeprefix('stages.')} {_shown(old)} -> {_shown(new)}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
