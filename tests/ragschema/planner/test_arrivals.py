"""Arrival times."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.arrivals import bursts, from_trace, poisson


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
