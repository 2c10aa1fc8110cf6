"""The closed form of a group's timing against playing it batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema.planner.burst import GroupShape, pass_through
from ragschema.planner.play import play_group

POWERS = st.sampled_from([1, 2, 4, 8, 16])
SECONDS = st.floats(0.001, 10.0)


@given(
    steps=st.lists(st.tuples(POWERS, SECONDS), min_size=1, max_size=5),
    gaps=st.lists(st.floats(0.0, 5.0), min_size=16, max_size=16),
)
def test_the_closed_form_is_the_played_one(
    steps: list[tuple[int, float]], gaps: list[float]
) -> None:
    arrivals = np.cumsum(gaps)
    shape = GroupShape.of(tuple(batch for batch, _ in steps), 16)
    w = np.array([[latency_s / batch for batch, latency_s in steps]])
    assert np.allclose(
        shape.finish(arrivals[None, :], w)[0], play_group(arrivals.tolist(), steps), rtol=1e-12
    )


def test_one_stage_by_hand() -> None:
    """Batches of 2 every 3 s; the second waits for its last request at 7 s."""
    shape = GroupShape.of((2,), 4)
    finish = shape.finish(np.array([[0.0, 1.0, 2.0, 7.0]]), np.array([[1.5]]))
    assert finish.tolist() == [[4.0, 4.0, 10.0, 10.0]]


def test_the_last_stage_with_a_full_batch_works_first() -> None:
    """Two stages, batches 1 and 2: read, read, write, read, read, write."""
    assert play_group([0.0] * 4, [(1, 1.0), (2, 10.0)]) == [12.0, 12.0, 24.0, 24.0]


def test_a_delay_lets_requests_overlap() -> None:
    assert pass_through(np.array([[0.0, 1.0]]), np.array([5.0])).tolist() == [[5.0, 6.0]]


@pytest.mark.parametrize("batches", [(1, 4), (4, 1), (2, 8, 2)])
def test_earlier_arrivals_never_finish_later(batches: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    shape = GroupShape.of(batches, 8)
    w = rng.uniform(0.1, 1, (50, len(batches)))
    late = np.cumsum(rng.uniform(0, 2, (50, 8)), axis=1)
    early = late * rng.uniform(0, 1, (50, 1))
    assert (shape.finish(early, w) <= shape.finish(late, w) + 1e-12).all()
