"""Figures of a load, on replies whose times are known."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.load.client import Failure, Reply
from coordinator.load.drive import LoadRun, Outcome
from coordinator.load.prompts import LoadRequest, Part, PartKind
from coordinator.load.report import Objectives, make_report, summary
from coordinator.load.workload import LoadPlan

START_S = 1000.0
PLAN = LoadPlan(
    tuple(LoadRequest((Part(PartKind.QUESTION, n, 10),), None, 5) for n in range(4)),
    np.array([0.0, 1.0, 2.0, 3.0]),
)


def reply(sent_s: float, pieces_s: list[float], end_s: float, output: int | None) -> Reply:
    return Reply(
        START_S + sent_s, START_S + end_s, tuple(START_S + at for at in pieces_s),
        None if output is None else 12, output, {"embed": 2.0}, 0.5,
    )  # fmt: skip


OUTCOMES = (
    Outcome(0, 0.0, reply(0.0, [0.1, 0.2, 0.5], 0.6, 5)),
    Outcome(1, 1.0, reply(1.5, [1.6], 1.7, None)),
    Outcome(2, 2.0, Reply(START_S + 2, START_S + 2.2, failure=Failure("http 429", "full"))),
    Outcome(3, 3.0, None),
)
RUN = LoadRun(START_S, 4.0, 1.0, 4, False, OUTCOMES)


def test_every_figure() -> None:
    report = make_report(RUN, PLAN, Objectives(ttft_ms=200.0, tpot_ms=110.0))
    metrics = {name: (round(s.min, 6), round(s.max, 6)) for name, s in report.metrics.items()}
    assert metrics == {
        "ttft_ms": (100, 600),
        "ttft_from_sent_ms": (100, 100),
        "tpot_ms": (100, 100),
        "itl_ms": (100, 300),
        "e2e_ms": (600, 700),
        "e2e_from_sent_ms": (200, 600),
        "lateness_ms": (0, 500),
    }
    assert report.stages_ms["embed"].count == 2
    assert report.requests_per_s == 0.5
    assert report.output_tokens_per_s == 6 / 4
    assert report.offered_per_s == pytest.approx(4 / 3)
    assert (report.goodput_per_s, report.goodput_share) == (0.25, 0.25)
    assert {kind: found.count for kind, found in report.errors.items()} == {
        "http 429": 1,
        "too late": 1,
    }
    assert report.errors["http 429"].example == "full"
    assert (report.tokens.output_counted, report.tokens.prompt_planned) == (1, 10)
    assert report.tokens.prompt_counted == 12
    assert report.degraded == 2
    assert report.client_cpu_share == 0.25
    coverage = report.coverage
    assert (coverage.sent_share, coverage.on_time_share, coverage.completed_share) == (
        0.75,
        0.5,
        0.5,
    )


@pytest.mark.parametrize(
    ("objectives", "share"),
    [
        (Objectives(ttft_ms=1000.0), 0.5),
        (Objectives(ttft_ms=1000.0, e2e_ms=650.0), 0.25),
        (Objectives(tpot_ms=99.0), 0.25),
        (Objectives(ttft_ms=1.0), 0.0),
    ],
)
def test_goodput_counts_from_the_plan(objectives: Objectives, share: float) -> None:
    assert make_report(RUN, PLAN, objectives).goodput_share == share


def test_an_answer_without_text_has_no_ttft_and_keeps_none() -> None:
    run = LoadRun(START_S, 4.0, 1.0, 1, False, (Outcome(0, 0.0, reply(0.0, [], 0.6, 5)),))
    report = make_report(run, PLAN, Objectives(ttft_ms=9000.0))
    assert (report.without_text, report.coverage.completed) == (1, 1)
    assert "ttft_ms" not in report.metrics
    assert report.metrics["e2e_ms"].count == 1
    assert report.goodput_share == 0
    assert make_report(run, PLAN, Objectives(e2e_ms=700.0)).goodput_share == 1


def test_without_objectives_there_is_no_goodput() -> None:
    assert make_report(RUN, PLAN, Objectives()).goodput_share is None


def test_nothing_came_back() -> None:
    run = LoadRun(START_S, 1.0, 0.1, 4, True, ())
    report = make_report(run, PLAN, Objectives(ttft_ms=1.0))
    assert report.metrics == {}
    assert report.goodput_share == 0
    assert report.coverage.completed_share == 0


def test_summary_of_known_values() -> None:
    found = summary(float(n) for n in range(101))
    assert found is not None
    assert (found.p50, found.p90, found.p99, found.max, found.count) == (50, 90, 99, 100, 101)
    assert summary(()) is None
