"""What a window makes of running totals."""

from __future__ import annotations

import pytest

from coordinator.replan.observe import Observed, Totals, Window, Workload
from coordinator.types import Timings, Usage

ANSWER = Timings(
    queue_ms=5.0, rewrite_ms=20.0, embed_ms=4.0, probe_ms=1.0, scan_ms=9.0, merge_ms=1.0,
    rerank_ms=30.0, prompt_ms=5.0, first_token_ms=175.0, total_ms=675.0,
)  # fmt: skip


def answered(count: int, output: int = 40) -> Workload:
    workload = Workload()
    for _ in range(count):
        workload.arrived()
        workload.answered(ANSWER, Usage(prompt_tokens=300, completion_tokens=output))
    return workload


def test_stages_are_those_of_plans() -> None:
    totals = answered(2).totals()
    each = {stage: s / 2 for stage, s in totals.stages_s.items()}
    expected = {"rewrite": 0.02, "retrieval": 0.015, "rerank": 0.03, "prefill": 0.1, "decode": 0.5}
    assert each == pytest.approx(expected)


def test_an_answer_without_text_is_all_prefill() -> None:
    workload = Workload()
    workload.answered(Timings(first_token_ms=None, total_ms=80.0), Usage())
    assert workload.totals().stages_s["prefill"] == pytest.approx(0.08)
    assert workload.totals().stages_s["decode"] == 0.0


def test_a_window_tells_what_came_within_it() -> None:
    window, workload = Window(samples=2), answered(100, output=1000)
    assert window.observed() is None
    window.add(0.0, workload.totals(50, 50))
    for _ in range(4):
        workload.arrived()
    workload.answered(ANSWER, Usage(300, 40))
    workload.answered(ANSWER, Usage(500, 60))
    workload.retrieved_again(6)
    window.add(2.0, workload.totals(1050, 250))
    seen = window.observed()
    assert seen is not None
    assert (seen.span_s, seen.arrivals_per_s, seen.answers) == (2.0, 2.0, 2)
    assert (seen.prompt, seen.output, seen.again, seen.prefix_hit) == (400.0, 50.0, 3.0, 0.2)
    assert seen.stages_s["decode"] == pytest.approx(0.5)
    window.add(4.0, workload.totals(1050, 250))
    assert window.full
    window.add(6.0, workload.totals(1050, 250))
    later = window.observed()
    assert later == Observed(4.0, 0.0, 0), "the first look has left the window"


def test_a_window_is_bounded_and_can_begin_anew() -> None:
    window = Window(samples=3)
    for now_s in range(1000):
        window.add(float(now_s), Totals(arrivals=now_s))
    seen = window.observed()
    assert seen is not None
    assert seen.span_s == 3.0
    window.clear()
    assert not window.full
    assert window.observed() is None
    window.add(1000.0, Totals(arrivals=1005))
    seen = window.observed()
    assert seen is not None
    assert (seen.span_s, seen.arrivals_per_s) == (1.0, 6.0)


def test_an_engine_that_starts_anew_tells_nothing_of_hits() -> None:
    window = Window(samples=2)
    window.add(0.0, answered(1).totals(1000, 900))
    window.add(1.0, answered(3).totals(100, 50))
    seen = window.observed()
    assert seen is not None
    assert seen.prefix_hit is None


def test_a_clock_that_stands_still_tells_nothing() -> None:
    window = Window(samples=2)
    window.add(1.0, Totals())
    window.add(1.0, Totals(arrivals=3))
    assert window.observed() is None
