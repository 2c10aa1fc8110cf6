"""The frontier keeps what nothing else beats."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragschema.planner.frontier import frontier_of
from ragschema.planner.schedule import Frontier, Schedule, StageChoice


def point(ttft_s: float, rate: float, chips: int = 1, stage: str = "prefill") -> Schedule:
    return Schedule((StageChoice(stage, chips, 1),), ((0,),), chips, None, ttft_s, rate * chips)


PAIRS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=20)


@given(PAIRS)
def test_it_holds_exactly_the_points_that_none_beats(pairs: list[tuple[int, int]]) -> None:
    kept = [
        (s.ttft_s, s.qps_per_chip)
        for s in frontier_of(point(float(t), float(r)) for t, r in pairs).points
    ]
    best = {
        (t, r)
        for t, r in pairs
        if not any((a <= t and b >= r) and (a, b) != (t, r) for a, b in pairs)
    }
    assert kept == sorted((float(t), float(r)) for t, r in best)


def test_of_equal_points_the_one_with_fewer_chips_stays() -> None:
    for order in ((4, 2), (2, 4)):
        (only,) = frontier_of(point(1.0, 1.0, chips) for chips in order).points
        assert only.chips == 2


def test_offers_say_whether_they_were_taken() -> None:
    frontier = Frontier()
    assert frontier.offer(point(2.0, 2.0))
    assert not frontier.offer(point(3.0, 1.0))
    assert frontier.offer(point(1.0, 1.0))


def test_it_tells_what_cannot_add_a_point() -> None:
    frontier = frontier_of([point(1.0, 1.0), point(2.0, 3.0)])
    lost = frontier.beats(np.array([0.5, 1.0, 1.5, 2.0]), np.array([0.1, 1.0, 2.0, 3.5]))
    assert lost.tolist() == [False, True, False, False]
