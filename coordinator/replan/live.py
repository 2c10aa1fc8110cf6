"""The running coordinator as re-planning sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from coordinator.deploy import coordinator_for
from coordinator.replan.asking import ask_planner
from coordinator.replan.exchange import Exchange, Settled
from coordinator.replan.loop import Planner, Replanner
from coordinator.replan.observe import Totals
from coordinator.replan.settings import ReplanSettings
from coordinator.replan.view import ReplanCollector
from coordinator.runtime import Runtime
from ragschema.errors import DeadlineExceeded, IncompatibleRequest, Unavailable
from ragschema.planner.plan_file import StoredPlan, read_plan


@asynccontextmanager
async def replanned(
    runtime: Runtime, settings: ReplanSettings | None, planner: Planner = ask_planner
) -> AsyncIterator[None]:
    """Watches a runtime meanwhile; None: nobody does.

    Args:
        planner: for tests.

    Raises:
        NotFound, InvalidInput: of the plan or the schema.
    """
    if settings is None:
        yield
        return
    replanner = Replanner(settings, LiveRig(runtime, Path(settings.folder)), planner)
    runtime.replanner = replanner
    runtime.metrics.registry.register(ReplanCollector(lambda: replanner.view))
    replanner.start()
    try:
        yield
    finally:
        await replanner.close()


#: Until the supervisor takes the question, has started the nodes, and they are reached.
_TAKE_S, _START_S, _REACH_S = 10.0, 1800.0, 90.0
_POLL_S: Final = 0.05
_ANY: Final = frozenset({"starting", "up", "refused", "done"})
_STARTED: Final = frozenset({"up", "refused", "done"})
_WRITING: Final = frozenset({"generate", "decode"})


class LiveRig:
    """Changes one runtime.

    Args:
        folder: of what is agreed on with the supervisor.
    """

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._exchange = Exchange(folder)

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

    async def use_processes(self, plan: Path, deployed: Path) -> None:
        """New processes beside the old ones; then the batches; then the old ones go."""
        before = {node.name for node in self._runtime.pool.llm_nodes}
        wanted = self._exchange.ask(plan, deployed)
        if await self._exchange.until(wanted, _ANY, _TAKE_S) is None:
            raise IncompatibleRequest(
                "nobody here starts and stops processes",
                field="replan",
                hint=f"stop the rig and start it with --plan {plan}",
            )
        answer = await self._exchange.until(wanted, _STARTED, _START_S)
        if answer is None:
            raise DeadlineExceeded(f"the new nodes were not up after {_START_S:g} s")
        if answer.state == "refused":
            raise IncompatibleRequest(answer.why)
        went_over = await self._gone_over(set(answer.nodes))
        if went_over:
            own = self._runtime.rig.coordinator
            await self._runtime.configure(coordinator_for(read_plan(plan), own))
            await self._old_ones_idle()
        self._exchange.settle(Settled(wanted, went_over))
        if not went_over:
            await self._gone_over(before)
            await self._old_ones_idle()
            self._exchange.settle(Settled(wanted, ok=False, back=True))
            raise Unavailable(f"the new nodes could not be reached within {_REACH_S:g} s")

    async def _gone_over(self, names: set[str]) -> bool:
        """Whether requests go to these LLM nodes, and all of them are ready."""
        give_up_s = time.monotonic() + _REACH_S
        while time.monotonic() < give_up_s:
            nodes = self._runtime.pool.llm_nodes
            if {node.name for node in nodes} == names and all(node.ready for node in nodes):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def _old_ones_idle(self) -> None:
        """The pool itself breaks off what lasts too long."""
        while self._runtime.pool.leaving():  # noqa: ASYNC110  it has no event to wait for
            await asyncio.sleep(_POLL_S)


def _differences(where: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in new:
            yield from _differences(f"{where}.{key}" if where else key, old.get(key), new[key])
    elif old != new:
        yield f"{where.removeprefix('stages.')} {_shown(old)} -> {_shown(new)}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
