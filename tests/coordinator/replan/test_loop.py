"""The loop with an injected clock: what it concludes, and that whatever fails leaves the plan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from coordinator.replan.loop import Replanner
from coordinator.replan.observe import Totals
from coordinator.replan.proposal import Ask, Option, Proposal
from coordinator.replan.view import ReplanCollector
from coordinator.rest.replan import ReplanReply, replan_json
from ragschema.errors import DeadlineExceeded, IncompatibleRequest, RagrigError
from ragschema.planner.plan_file import StoredPlan
from tests.coordinator.replan.planned import OUTPUT, PROMPT, Files, files
from tests.coordinator.waiting import until

DWELL_S = 10.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files(tmp_path_factory.mktemp("planned"))


@dataclass
class Deployed:
    """A rig that counts what is done to it."""

    answers: int = 0
    refusal: RagrigError | None = None
    changed: tuple[str, ...] = ("retrieve.max_batch 1 -> 16",)
    batches: list[StoredPlan] = field(default_factory=list)
    processes: list[Path] = field(default_factory=list)

    def totals(self) -> Totals:
        count = self.answers
        stages = dict.fromkeys(("rewrite", "retrieval", "rerank", "prefill", "decode"), 0.0)
        return Totals(count, count, PROMPT * count, OUTPUT * count, stages_s=stages)

    def most_running(self) -> int:
        return 8

    def changes(self, plan: StoredPlan) -> tuple[str, ...]:
        return self.changed

    async def use_batches(self, plan: StoredPlan) -> None:
        self.batches.append(plan)

    async def use_processes(self, plan: Path, deployed: Path) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(plan)


class Play:
    """A replanner, the load it sees, and a planner that answers as it is told."""

    def __init__(self, made: Files, answer: Proposal | Exception, **changes: Any) -> None:
        self.now_s = 0.0
        self.rig = Deployed()
        self.asked: list[Ask] = []
        self.answer = answer
        plain = {"window_s": 6.0, "dwell_s": DWELL_S}
        settings = made.settings(**{**plain, **changes})
        self.loop = Replanner(settings, self.rig, self._plan, lambda: self.now_s)

    async def _plan(self, ask: Ask, limit_s: float) -> Proposal:
        self.asked.append(ask)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def load(self, rate: int, seconds: int) -> None:
        for _ in range(5 * seconds):
            self.now_s += 0.2
            self.rig.answers += rate // 5
            self.loop.look()
            for _ in range(3):
                await asyncio.sleep(0)


def proposal(
    made: Files, before: float, batches: float | None, placement: float | None
) -> Proposal:
    options = [
        None if cost is None else Option(str(made.plan), cost, {}) for cost in (batches, placement)
    ]
    return Proposal(before, {}, *options)


async def test_within_the_range_nothing_is_asked(made: Files) -> None:
    play = Play(made, proposal(made, 9.0, 1.0, None))
    await play.load(20, 60)
    assert play.asked == []
    assert play.loop.view.out == ()
    assert play.loop.view.observed is not None


async def test_better_batches_are_taken_over_once(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None))
    await play.load(100, 60)
    (ask,) = play.asked
    assert ask.observed.arrivals_per_s == pytest.approx(100.0)
    assert len(play.rig.batches) == 1
    view = play.loop.view
    assert view.last is not None
    assert (view.last.kind, view.last.applied, view.last.gain) == ("batches", True, 2.0)
    assert "arrivals per s 100, planned for" in view.last.reason
    assert view.last.changes == ("retrieve.max_batch 1 -> 16",)
    assert view.applied == {"batches": 1}


async def test_propose_never_deploys(made: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    play = Play(made, proposal(made, 9.0, 2.0, 1.0), mode="propose")
    await play.load(100, 120)
    assert len(play.asked) == 1, "the same load is not planned for again"
    assert (play.rig.batches, play.rig.processes) == ([], [])
    last = play.loop.view.last
    assert last is not None
    assert (last.kind, last.applied, last.note) == ("processes", False, "--replan propose")
    assert "proposed, since arrivals per s 100" in caplog.text
    assert "9 s -> 1 s, 9.00 times better" in caplog.text


@pytest.mark.parametrize(
    ("batches", "placement", "kind"),
    [
        (1.95, None, "none"),
        (1.8, None, "batches"),
        (None, 1.6, "none"),
        (None, 1.5, "processes"),
        (1.8, 1.4, "batches"),
        (1.8, 1.3, "processes"),
        (None, None, "none"),
    ],
)
async def test_what_must_be_gained(
    made: Files, batches: float | None, placement: float | None, kind: str
) -> None:
    """A tenth by other batches, and by other processes three tenths beyond what those gain."""
    play = Play(made, proposal(made, 2.0, batches, placement))
    await play.load(100, 20)
    last = play.loop.view.last
    assert last is not None
    assert last.kind == kind
    assert len(play.rig.batches) == (kind == "batches")
    assert len(play.rig.processes) == (kind == "processes")


async def test_a_better_plan_that_changes_nothing_here_is_not_deployed(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None))
    play.rig.changed = ()
    await play.load(100, 60)
    assert len(play.asked) == 1
    assert (play.rig.batches, play.loop.view.applied) == ([], {})
    assert play.loop.view.last is not None
    assert not play.loop.view.last.applied


async def test_refused_processes_leave_better_batches(made: Files) -> None:
    play = Play(made, proposal(made, 3.0, 2.0, 1.0))
    play.rig.refusal = IncompatibleRequest("no memory beside those that run")
    await play.load(100, 20)
    assert (len(play.rig.batches), play.rig.processes) == (1, [])
    assert play.loop.view.applied == {"batches": 1}


async def test_refused_processes_alone_leave_everything(made: Files) -> None:
    play = Play(made, proposal(made, 3.0, None, 1.0))
    play.rig.refusal = IncompatibleRequest("no memory beside those that run")
    await play.load(100, 60)
    assert len(play.asked) == 1
    last = play.loop.view.last
    assert last is not None
    assert (last.applied, last.note) == (False, "refused: no memory beside those that run")
    assert play.loop.view.applied == {}


@pytest.mark.parametrize("error", [DeadlineExceeded("too slow"), ValueError("a defect")])
async def test_a_planner_that_fails_leaves_the_plan_and_is_asked_again(
    made: Files, error: Exception
) -> None:
    play = Play(made, error)
    await play.load(100, 45)
    assert 3 <= len(play.asked) <= 4, "once for each dwell"
    assert (play.rig.batches, play.rig.processes) == ([], [])
    view = play.loop.view
    assert (view.state, view.failed, view.last) == ("watching", len(play.asked), None)
    assert str(error.args[0]) in str(view.error)
    play.answer = proposal(made, 2.0, 1.0, None)
    await play.load(100, 15)
    assert play.loop.view.error is None
    assert len(play.rig.batches) == 1


async def test_an_alternating_load_neither_wavers_nor_hurries(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None))
    for _ in range(60):
        await play.load(100, 1)
        await play.load(15, 1)
    assert len(play.rig.batches) <= 1
    for _ in range(10):
        await play.load(200, 20)
        await play.load(5, 20)
    assert len(play.rig.batches) <= 1 + 400 / DWELL_S / 2


async def test_too_few_requests_tell_nothing(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None), min_answers=1000)
    await play.load(100, 60)
    assert play.asked == []
    assert play.loop.view.observed is None


async def test_one_planning_at_a_time(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None))
    hold, first = asyncio.Event(), play._plan

    async def slow(ask: Ask, limit_s: float) -> Proposal:
        found = await first(ask, limit_s)
        await hold.wait()
        return found

    play.loop._planner = slow
    await play.load(100, 60)
    assert (len(play.asked), play.loop.view.state) == (1, "planning")
    await play.loop.close()
    assert play.rig.batches == []


async def test_what_is_told_has_its_published_shape(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None))
    registry = CollectorRegistry()
    registry.register(ReplanCollector(lambda: play.loop.view))
    empty = ReplanReply.model_validate(replan_json(play.loop.view))
    assert (empty.state, empty.last, empty.observed) == ("watching", None, None)
    await play.load(100, 9)
    out = ReplanReply.model_validate(replan_json(play.loop.view))
    assert [each.what for each in out.out_of_range] == ["arrivals per s"]
    assert b"ragrig_replan_out_of_range 1.0" in generate_latest(registry)
    await play.load(100, 20)
    reply = ReplanReply.model_validate(replan_json(play.loop.view))
    assert reply.last is not None
    assert (reply.last.before_s, reply.last.after_s, reply.last.gain) == (2.0, 1.0, 2.0)
    assert (reply.plannings, reply.proposals, reply.changes) == (1, 1, {"batches": 1})
    text = generate_latest(registry).decode()
    assert 'ragrig_replan_changes_total{kind="batches"} 1.0' in text
    assert 'ragrig_replan_predicted_seconds{plan="before"} 2.0' in text


async def test_it_looks_by_itself(made: Files) -> None:
    play = Play(made, proposal(made, 2.0, 1.0, None), window_s=0.3)
    assert play.loop.view.observed is None
    play.loop.start()

    def seen() -> bool:
        play.now_s += 1.0
        play.rig.answers += 100
        return play.loop.view.observed is not None

    await until(seen)
    await play.loop.close()
