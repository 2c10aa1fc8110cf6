"""Arrival times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.arrivals import arrivals_for, bursts, clumps, from_trace, poisson
from ragschema.traffic import ArrivalsConfig


def test_poisson_has_its_rate_and_its_spread() -> None:
    gaps = np.diff(poisson(4.0, 50_000, 3))
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() == pytest.approx(0.25, rel=0.02)


def test_equal_seeds_give_equal_times() -> None:
    assert (poisson(1.0, 10, 7) == poisson(1.0, 10, 7)).all()


def test_bursts_come_together() -> None:
    assert bursts(2, 1.5, 5).tolist() == [0.0, 0.0, 1.5, 1.5, 3.0]


def test_a_trace_starts_at_zero_and_can_be_sped_up() -> None:
    assert from_trace(np.array([10.0, 12.0, 16.0]), speed=2.0).tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize("times", [[], [2.0, 1.0], [0.0, np.nan]])
def test_traces_that_are_none(times: list[float]) -> None:
    with pytest.raises(InvalidInput, match="ascending"):
        from_trace(np.array(times))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_rates_that_are_none(rate: float) -> None:
    with pytest.raises(InvalidInput):
        poisson(rate, 1, 0)
    with pytest.raises(InvalidInput):
        bursts(0 if rate == 0 else 1, rate, 1)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_clumps_have_their_rate_and_their_spread(cv: float) -> None:
    gaps = np.diff(clumps(4.0, cv, 200_000, 3))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


@pytest.mark.parametrize(
    "config",
    [
        ArrivalsConfig(),
        ArrivalsConfig("gamma", cv=2),
        ArrivalsConfig("bursts", size=8),
    ],
)
def test_every_process_has_the_rate_that_is_asked_for(config: ArrivalsConfig) -> None:
    times = arrivals_for(config, 5.0, 40_000, 1)
    assert len(times) == 40_000
    assert (np.diff(times) >= 0).all()
    assert len(times) / times[-1] == pytest.approx(5.0, rel=0.03)


def test_a_trace_keeps_its_shape_and_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp\n100\n101\n103\n", encoding="utf-8")
    times = arrivals_for(ArrivalsConfig("trace", trace=str(path)), 2.0, 5, 0)
    assert times == pytest.approx(np.cumsum([1, 2, 1, 2, 1]) / 3)


def test_a_trace_without_time_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp\n7\n7\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="all times of the trace are the same"):
        arrivals_for(ArrivalsConfig("trace", trace=str(path)), 2.0, 5, 0)
