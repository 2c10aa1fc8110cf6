"""What a plan promised against what was measured: errors, stages, the verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.check import Line, at_full, at_load, judge
from coordinator.load.report import Coverage, LoadReport, Summary, Tokens
from ragschema.errors import InvalidInput
from ragschema.planner.plan_file import StoredPlan

POINT = {
    "load": 0.5, "arrivals_per_s": 2.0,
    "ttft_s_p50": 0.2, "ttft_s_p99": 0.4, "tpot_s_p50": 0.01, "tpot_s_p99": 0.02,
    "e2e_s_p50": 1.0, "e2e_s_p99": 2.0,
    "stage_s.rewrite_prefill": 0.01, "stage_s.rewrite_decode": 0.02, "stage_s.retrieval": 0.05,
    "stage_s.prefill": 0.1, "stage_s.decode": 0.8, "stage_s.encode": 0.5,
}  # fmt: skip
PLAN = StoredPlan(
    "desk", {"qps": 4.0, "ttft_s": 0.1, "tpot_s": 0.01}, (),
    {"ttft_s": (0.08, 0.12), "qps": (3.0, 5.0)}, {}, None,
)  # fmt: skip


def flat(value: float, p99: float | None = None) -> Summary:
    return Summary(10, value, value, value, value, p99 or value, value)


def report(**metrics: Summary) -> LoadReport:
    plain = {
        "ttft_ms": flat(220.0, 380.0), "tpot_ms": flat(10.0, 20.0), "e2e_ms": flat(1000.0, 2000.0),
        "ttft_from_sent_ms": flat(210.0), "e2e_from_sent_ms": flat(1010.0),
    }  # fmt: skip
    stages = {
        "queue": flat(1.0), "rewrite": flat(33.0), "embed": flat(20.0), "probe": flat(5.0),
        "scan": flat(24.0), "merge": flat(1.0), "prompt": flat(6.0),
    }  # fmt: skip
    return LoadReport(
        10.0, False, Coverage(10, 10, 10, 1.0, 1.0, 1.0), plain | metrics, stages, 2.0, 3.5, 70.0,
        None, None, {}, Tokens(100, 10, 100, 100), 0, 0.1,
    )  # fmt: skip


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines}


def test_metrics_stand_beside_each_other() -> None:
    found = by_name(at_load(PLAN, POINT, report()))
    ttft = found["ttft_s p50"]
    assert (ttft.load, ttft.predicted, ttft.measured) == ("50%", 0.2, pytest.approx(0.22))
    assert ttft.error_pct == pytest.approx(10.0)
    assert (ttft.low, ttft.high) == (pytest.approx(0.16), pytest.approx(0.24))
    assert found["ttft_s p99"].error_pct == pytest.approx(-5.0)
    assert found["tpot_s p50"].low == found["tpot_s p50"].high == 0.01
    assert found["e2e_s p99"].error_pct == pytest.approx(0.0)


def test_stages_are_compared_apart() -> None:
    found = by_name(at_load(PLAN, POINT, report()))
    assert found["stage retrieval"].measured == pytest.approx(0.05)
    assert found["stage rewrite"].predicted == pytest.approx(0.03)
    assert found["stage rewrite"].measured == pytest.approx(0.033)
    # What is left of the time to the first token: 210 less queue, stages and prompt.
    assert found["stage prefill"].measured == pytest.approx(0.210 - 0.001 - 0.083 - 0.006)
    assert found["stage decode"].measured == pytest.approx(0.8)
    assert "stage encode" not in found  # nobody tells of it


def test_the_rate_is_compared_in_a_closed_loop() -> None:
    line = at_full(PLAN, report())
    assert (line.load, line.predicted, line.measured) == ("full", 4.0, 3.5)
    assert line.error_pct == pytest.approx(-12.5)
    assert line.kept(1.0)  # within the interval


def test_nothing_answered_is_nothing_to_compare() -> None:
    with pytest.raises(InvalidInput, match="no request was answered at a load of 50%"):
        at_load(PLAN, POINT, replace(report(), metrics={}))


def line(error_pct: float) -> Line:
    return Line("50%", "x", "", 1.0, 1.0, 1.0, 1.0 + error_pct / 100)


@pytest.mark.parametrize(
    ("errors", "passed", "kept"),
    [
        ([0, 5, -9, 9.9], True, 4),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 90], True, 9),
        ([0, 0, 0, 30, 30], False, 3),
        ([-11, -11, -11], False, 0),
    ],
)
def test_half_must_be_near_and_nine_of_ten_not_far(
    errors: list[float], passed: bool, kept: int
) -> None:
    verdict = judge([line(error) for error in errors], 10.0)
    assert verdict.passed is passed
    assert verdict.kept == kept
