"""Stages that only a share of requests goes through: by hand, and against drawing batches."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.planner.thinning import thinned
from tests.ragschema.planner.making import table


def test_all_requests_leave_the_table_as_it_is() -> None:
    whole = table("rerank", {1: [1.0, 1.5]})
    assert thinned(whole, 1.0) is whole


def test_two_requests_by_hand() -> None:
    found = thinned(table("rerank", {1: [1.0, 1.5]}), 0.25)
    # None, one or both of two: 9/16, 6/16, 1/16.
    assert found.latency_s[0] == pytest.approx([0.25, 6 / 16 * 1.0 + 1 / 16 * 1.5])
    assert found.share == 0.25
    assert found.full_s is not None
    assert found.full_s[0].tolist() == [1.0, 1.5]


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_the_mean_of_batches_that_are_drawn(share: float) -> None:
    seed = 8
    print("seed", seed)
    row = [1.0, 1.3, 1.8, 3.0, 5.5]
    found = thinned(table("rerank", {1: [*row]}), share)
    through = np.random.default_rng(seed).binomial(16, share, 400_000)
    seconds = np.interp(through, [0, 1, 2, 4, 8, 16], [0.0, *row])
    seconds[through == 0] = 0.0
    assert found.latency_s[0, -1] == pytest.approx(seconds.mean(), rel=0.01)


def test_what_is_not_possible_stays_so() -> None:
    found = thinned(table("rerank", {1: [None, 1.5, None]}), 0.5)
    assert np.isinf(found.latency_s[0, [0, 2]]).all()
    # One of two takes as long as two: a size that is not possible is padded.
    assert found.latency_s[0, 1] == pytest.approx(0.75 * 1.5)


def test_a_linear_stage_takes_the_share_of_its_time() -> None:
    whole = table("rerank", {1: [1.0, 2.0, 4.0, 8.0]})
    assert thinned(whole, 0.3).latency_s == pytest.approx(0.3 * whole.latency_s)


def test_how_many_go_through() -> None:
    found = thinned(table("rerank", {1: [1.0, 1.0, 1.0]}), 0.3)
    assert [found.going_through(batch) for batch in (1, 2, 4)] == [1, 1, 1]
    assert table("rerank", {1: [1.0, 1.0, 1.0]}).going_through(4) == 4
