"""Estimates from the latest comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.recall.window import WINDOW, RecallWindow, recall_of, wilson_lower


def test_an_empty_window_tells_nothing() -> None:
    assert RecallWindow("a").estimate() is None


def test_the_mean_is_of_the_latest_comparisons() -> None:
    window = RecallWindow("a")
    for _ in range(WINDOW):
        window.add(0.0)
    for _ in range(WINDOW // 2):
        window.add(1.0)
    estimate = window.estimate()
    assert estimate is not None
    assert estimate.mean == 0.5
    assert estimate.samples == WINDOW
    assert estimate.lower_bound < 0.5


def test_the_bound_tightens_with_samples_and_is_known() -> None:
    # 9 of 10, one-sided 95 %: 0.6522 by Wilson's formula, worked out by hand.
    z, n, p = 1.645, 10, 0.9
    by_hand = (p + z * z / (2 * n) - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (
        1 + z * z / n
    )
    assert wilson_lower(0.9, 10) == pytest.approx(by_hand)
    bounds = [wilson_lower(0.9, n) for n in (1, 10, 100, 10_000)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(0.9, abs=0.01)
    assert wilson_lower(1.0, 200) < 1.0


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_the_bound_is_a_share_below_the_mean(mean: float, samples: int) -> None:
    assert 0.0 <= wilson_lower(mean, samples) <= mean + 1e-12


def test_the_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    true = 0.93
    held = [wilson_lower(rng.binomial(10, true, 60).mean() / 10, 60) <= true for _ in range(400)]
    assert np.mean(held) >= 0.95


def test_recall_counts_rows_of_the_true_nearest() -> None:
    assert recall_of([1, 2, 9], [0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], 3) == pytest.approx(2 / 3)
    assert recall_of([], [0.1], [1], 3) == 0.0
    assert recall_of([1], [0.1], [1], 3) == 1.0  # there is but one row
    assert recall_of([1], [], [], 3) is None


def test_rows_as_far_as_the_last_are_as_true() -> None:
    # Row 4 is a copy of row 3: either will do, but one of them only counts once.
    distances, rows = [0.1, 0.2, 0.3, 0.3, 0.9], [1, 2, 3, 4, 5]
    assert recall_of([1, 2, 4], distances, rows, 3) == 1.0
    assert recall_of([2, 3, 4], distances, rows, 3) == 1.0
    assert recall_of([1, 2, 5], distances, rows, 3) == pytest.approx(2 / 3)
