"""The background task: look, and where the load has left the plan's range, plan and deploy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from coordinator.replan.asking import ask_planner
from coordinator.replan.drift import Drift, Out, figures_of, ranges_of
from coordinator.replan.observe import Observed, Totals, Window
from coordinator.replan.proposal import Ask, Option, Proposal
from coordinator.replan.settings import ReplanSettings
from coordinator.replan.view import Told, View
from ragschema.errors import RagrigError
from ragschema.planner.plan_file import StoredPlan, read_plan
from ragschema.workload import load_schema

log = logging.getLogger(__name__)

Planner = Callable[[Ask, float], Awaitable[Proposal]]
#: Of the time that planning may take, what one search of several may.
_SEARCH_SHARE = 0.2


class Deployment(Protocol):
    """The rig that runs, as far as plans change it."""

    def totals(self) -> Totals:
        """What came and was answered since the start."""
        ...

    def most_running(self) -> int:
        """Sequences that nodes can have under way."""
        ...

    def changes(self, plan: StoredPlan) -> tuple[str, ...]:
        """What ``use_batches`` would change, one line each."""
        ...

    async def use_batches(self, plan: StoredPlan) -> None:
        """Takes over a plan's batch sizes, time-outs and limits at once."""
        ...

    async def use_processes(self, plan: Path, deployed: Path) -> None:
        """Runs a plan's processes in place of those that run, without losing a request.

        Args:
            deployed: the plan whose batches are in use.

        Raises:
            RagrigError: why not; everything is then as it was.
        """
        ...


class Replanner:
    """Watches one deployment.

    Args:
        planner: for tests; the true one plans in a process of its own.
        clock: seconds that never go back.

    Raises:
        NotFound, InvalidInput: of the plan or the schema.
    """

    def __init__(
        self,
        settings: ReplanSettings,
        deployment: Deployment,
        planner: Planner = ask_planner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._deployment = deployment
        self._planner = planner
        self._clock = clock
        plan, schema = read_plan(Path(settings.plan)), load_schema(Path(settings.schema))
        prompt = plan.requests.get("prompt", 0.0)
        passages = max(0.0, prompt - plan.requests.get("question", 0.0))
        hit = schema.cache.document_kv_hit * passages / prompt if prompt else 0.0
        again = schema.retrieval.per_sequence - 1.0
        self._drift = Drift(settings, ranges_of(plan, hit, again), clock())
        self._window = Window(round(settings.window_s / settings.period_s))
        self._view = View(settings.mode, "watching", settings.plan)
        self._deciding: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def view(self) -> View:
        """As of the last look."""
        return self._view

    def start(self) -> None:
        """Looks from now on, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends it; a plan that is half deployed is undone by the supervisor."""
        tasks = [task for task in (self._task, self._deciding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.period_s)
            try:
                self.look()
            except Exception:
                log.exception("defect while looking at the load")

    def look(self) -> None:
        """Takes a sample, and starts a decision when one is due."""
        now_s = self._clock()
        self._window.add(now_s, self._deployment.totals())
        observed = self._enough()
        if observed is None:
            self._view = replace(self._view, observed=None, out=())
            return
        figures = figures_of(observed)
        out = self._drift.look(figures, now_s)
        left_s = self._drift.dwell_left_s(now_s)
        self._view = replace(self._view, observed=observed, out=out, dwell_left_s=left_s)
        busy = self._deciding is not None and not self._deciding.done()
        if not busy and self._drift.due(out, figures, now_s):
            self._deciding = asyncio.get_running_loop().create_task(self._decide(observed, out))

    def _enough(self) -> Observed | None:
        """What is observed, once that says something."""
        observed = self._window.observed() if self._window.full else None
        if observed is None:
            return None
        came = observed.arrivals_per_s * observed.span_s
        if came < self._settings.min_answers:
            return None
        if observed.answers < self._settings.min_answers:
            return Observed(observed.span_s, observed.arrivals_per_s, observed.answers)
        return observed

    async def _decide(self, observed: Observed, out: tuple[Out, ...]) -> None:
        """Plans, and deploys what is enough better; whatever fails, the plan stays."""
        reason = " and ".join(map(str, out))
        log.info("the load has left the plan's range: %s", reason)
        self._now("planning", asked=self._view.asked + 1)
        try:
            ask = self._ask(observed)
            await self._conclude(await self._planner(ask, self._settings.limit_s), observed, reason)
            self._now("watching", error=None)
        except RagrigError as error:
            self._failed(str(error))
        except Exception as error:
            log.exception("defect while re-planning")
            self._failed(f"defect: {error}")

    def _failed(self, why: str) -> None:
        log.warning("re-planning failed, the plan stays: %s", why)
        self._drift.failed(self._clock())
        self._now("watching", error=why, failed=self._view.failed + 1)

    def _ask(self, observed: Observed) -> Ask:
        own = self._settings
        stem = Path(own.folder) / f"plan-{self._view.asked}"
        return Ask(
            plan=self._view.plan,
            schema=own.schema,
            profile=own.profile,
            allow_extrapolation=own.allow_extrapolation,
            observed=observed,
            most_running=self._deployment.most_running(),
            out=(f"{stem}-batches.yaml", f"{stem}-processes.yaml"),
            limit_s=own.limit_s * _SEARCH_SHARE,
        )

    async def _conclude(self, found: Proposal, observed: Observed, reason: str) -> None:
        batches, processes = self._good_enough(found)
        if batches is None and processes is None:
            best = min((found.batches, found.placement), key=_cost_s)
            self._tell("none", best, found, reason)
            self._drift.kept(figures_of(observed), self._clock())
            return
        self._now("deploying", proposed=self._view.proposed + 1)
        note = ""
        if processes is not None:
            note = await self._deploy("processes", processes, found, observed, reason)
            if not note:
                return
            if self._settings.mode == "propose":
                batches = None  # what is told of last is the better of the two
        if batches is not None:
            note = await self._deploy("batches", batches, found, observed, reason)
        if note:
            self._drift.kept(figures_of(observed), self._clock())

    def _good_enough(self, found: Proposal) -> tuple[Option | None, Option | None]:
        """Batches and processes that bring as much as is asked of them."""
        batches, processes = found.batches, found.placement
        if batches is not None and found.before_s < self._settings.min_gain * batches.cost_s:
            batches = None
        least_s = found.before_s if batches is None else batches.cost_s
        if processes is not None and least_s < self._settings.placement_gain * processes.cost_s:
            processes = None
        return batches, processes

    async def _deploy(
        self, kind: str, option: Option, found: Proposal, observed: Observed, reason: str
    ) -> str:
        """Why it was not deployed; empty: it was."""
        note = "" if self._settings.mode == "auto" else "--replan propose"
        plan = read_plan(Path(option.plan))
        changes = self._deployment.changes(plan)
        if kind == "batches" and not changes:
            note = "it differs only in what engines do on their own"
        if not note and kind == "batches":
            await self._deployment.use_batches(plan)
        elif not note:
            note = await self._roll(option)
        self._tell(kind, option, found, reason, changes, note)
        if not note:
            ranges = ranges_of(plan, observed.prefix_hit or 0.0, observed.again)
            self._drift.changed(ranges, figures_of(observed), self._clock())
            self._window.clear()
            applied = dict(self._view.applied)
            applied[kind] = applied.get(kind, 0) + 1
            self._view = replace(self._view, plan=option.plan, applied=applied, out=())
        return note

    async def _roll(self, option: Option) -> str:
        try:
            await self._deployment.use_processes(Path(option.plan), Path(self._view.plan))
        except RagrigError as error:
            return f"refused: {error}"
        return ""

    def _tell(
        self,
        kind: str,
        option: Option | None,
        found: Proposal,
        reason: str,
        changes: tuple[str, ...] = (),
        note: str = "",
    ) -> None:
        told = Told(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=kind,
            applied=kind != "none" and not note,
            reason=reason,
            changes=changes,
            before_s=found.before_s,
            after_s=found.before_s if option is None else option.cost_s,
            plan=self._view.plan if option is None else option.plan,
            note=note,
        )
        log.info("%s", told)
        self._view = replace(self._view, last=told)

    def _now(self, state: str, **changes: object) -> None:
        self._view = replace(self._view, state=state, **changes)  # type: ignore[arg-type]


def _cost_s(option: Option | None) -> float:
    return float("inf") if option is None else option.cost_s
