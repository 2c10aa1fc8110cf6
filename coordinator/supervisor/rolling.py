"""Other LLM nodes in place of those that run: all new ones first, then the coordinator, then the
old ones go.

Whatever fails before the coordinator has gone over leaves the rig as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import psutil

from coordinator.deploy import coordinator_for, rig_for
from coordinator.replan.exchange import Answered, Asked, Exchange, Settled
from coordinator.replan.settings import ReplanSettings, write_settings
from coordinator.supervisor.supervisor import Supervisor
from ragschema.errors import DeadlineExceeded, IncompatibleRequest, RagrigError, Unavailable
from ragschema.planner.plan_file import read_plan
from ragschema.rig import LlmNodeConfig, RigConfig

log = logging.getLogger(__name__)

_POLL_S: Final = 0.2
#: The coordinator waits for answers under way at the old nodes, which end by then.
_SETTLE_S: Final = 900.0
_BACK_S: Final = 120.0
#: Of what the processes that run take, so much must be free for those beside them.
_SPARE: Final = 1.2


class Roller:
    """Answers the coordinator's questions for other processes: ``async with Roller(...)``.

    Args:
        base: the rig file's rig, without a plan.
        cores: processors that may be used.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        settings: ReplanSettings,
        base: RigConfig,
        cores: Sequence[int],
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._base = base
        self._cores = tuple(cores)
        self._exchange = Exchange(Path(settings.folder))
        self._generation = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None, "entered before"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def run(self) -> None:
        """Answers until it is cancelled."""
        last = None
        while True:
            await asyncio.sleep(_POLL_S)
            asked = await asyncio.to_thread(self._exchange.asked)
            if asked is not None and asked.id != last:
                last = asked.id
                await self._answer(asked)

    async def _answer(self, asked: Asked) -> None:
        self._exchange.answer(Answered(asked.id, "starting"))
        try:
            await self._roll(asked)
        except RagrigError as error:
            log.warning("other processes are not deployed: %s", error)
            self._exchange.answer(Answered(asked.id, "refused", str(error)[:4000]))
        except Exception as error:
            log.exception("defect while deploying other processes")
            self._exchange.answer(Answered(asked.id, "refused", f"defect: {error}"[:4000]))

    async def _roll(self, asked: Asked) -> None:
        supervisor, before = self._supervisor, self._supervisor.rig
        in_use = coordinator_for(read_plan(Path(asked.deployed)), before.coordinator)
        before = replace(before, coordinator=in_use)
        wanted = self._wanted(Path(asked.plan), before)
        old = tuple(node.name for node in before.llm_nodes)
        new = tuple(node.name for node in wanted.llm_nodes)
        if new == old:
            self._exchange.answer(Answered(asked.id, "up", nodes=new))
            self._take(asked, wanted)
            return
        _check_memory([view.pid for view in supervisor.views() if view.name in old])
        # Cancelled, it leaves both generations to the supervisor, which then stops the rig.
        try:
            for node in wanted.llm_nodes:
                await supervisor.admit(node)
            await self._go_over(asked, before, wanted)
        except Exception:
            await supervisor.dismiss(new)
            raise
        await supervisor.dismiss(old)
        self._take(asked, wanted)

    async def _go_over(self, asked: Asked, before: RigConfig, wanted: RigConfig) -> None:
        """Returns once the coordinator uses the new nodes alone.

        Raises:
            Unavailable, DeadlineExceeded: it does not; then it uses the old ones alone.
        """
        self._supervisor.publish(wanted)
        names = tuple(node.name for node in wanted.llm_nodes)
        self._exchange.answer(Answered(asked.id, "up", nodes=names))
        try:
            settled = await self._told(asked, _SETTLE_S, lambda told: True)
            if settled is None:
                raise DeadlineExceeded("the coordinator did not tell whether it uses the new nodes")
            if not settled.ok:
                raise Unavailable("the coordinator did not go over to the new nodes")
        except Exception:
            self._supervisor.publish(before)
            await self._told(asked, _BACK_S, lambda told: told.back)
            raise

    def _take(self, asked: Asked, rig: RigConfig) -> None:
        """From now on a coordinator that starts anew serves this plan."""
        self._supervisor.publish(rig)
        self._settings = replace(self._settings, plan=asked.plan)
        write_settings(self._supervisor.run.replan_file, self._settings)
        self._exchange.answer(
            Answered(asked.id, "done", nodes=tuple(node.name for node in rig.llm_nodes))
        )

    def _wanted(self, plan: Path, before: RigConfig) -> RigConfig:
        """The rig of a plan, with new names for its nodes where they are not those that run."""
        if any(node.address is not None for node in before.llm_nodes):
            raise IncompatibleRequest(
                "the rig uses LLM nodes that run elsewhere", field="llm_nodes"
            )
        rig = rig_for(read_plan(plan), self._base, self._cores)
        if len(rig.retrieval_nodes) != len(before.retrieval_nodes):
            raise IncompatibleRequest(
                f"the plan has {len(rig.retrieval_nodes)} retrieval nodes and"
                f" {len(before.retrieval_nodes)} run: shards do not move while a rig runs",
                field="retrieval_nodes",
                hint=f"stop the rig and start it with --plan {plan}",
            )
        rig = replace(rig, retrieval_nodes=before.retrieval_nodes)
        if list(map(_shape, rig.llm_nodes)) == list(map(_shape, before.llm_nodes)):
            return replace(rig, llm_nodes=before.llm_nodes)
        self._generation += 1
        named = (replace(node, name=f"{node.name}-{self._generation}") for node in rig.llm_nodes)
        return replace(rig, llm_nodes=tuple(named))

    async def _told(
        self, asked: Asked, timeout_s: float, enough: Callable[[Settled], bool]
    ) -> Settled | None:
        """What the coordinator said last; None: not enough in time.

        One that was started anew meanwhile read the nodes that are published, and knows no others.
        """
        started = self._supervisor.coordinator_starts()
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            if self._supervisor.coordinator_starts() != started:
                return Settled(asked.id, ok=True, back=True)
            settled = await asyncio.to_thread(self._exchange.settled, asked.id)
            if settled is not None and enough(settled):
                return settled
            await asyncio.sleep(_POLL_S)
        return None


def _shape(node: LlmNodeConfig) -> LlmNodeConfig:
    """What must be equal for a process to be left alone."""
    return replace(node, name="any", port=0)


def _check_memory(pids: Sequence[int | None]) -> None:
    """Both generations run beside each other for a while."""
    held = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += psutil.Process(pid).memory_info().rss if pid is not None else 0
    free = psutil.virtual_memory().available
    if free < _SPARE * held:
        raise IncompatibleRequest(
            f"the nodes that run hold {held >> 20} MiB, and {free >> 20} MiB are free for those"
            " that would start beside them",
            field="replan",
            hint="stop the rig and start it with the new plan",
        )
