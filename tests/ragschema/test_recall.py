"""Settings for a wanted recall, read off a measured curve on its safe side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from ragschema.recall import RecallChoice, RecallCurve, choose
from ragschema.storage.manifest import CurvePoint

PLAIN = (
    CurvePoint(1, None, 0.30, 1_000),
    CurvePoint(8, None, 0.58, 8_000),
    CurvePoint(64, None, 0.66, 64_000),
)
REFINED = (
    CurvePoint(1, 4, 0.40, 1_000),
    CurvePoint(8, 4, 0.80, 8_000),
    CurvePoint(16, 4, 0.92, 16_000),
    CurvePoint(64, 4, 0.97, 64_000),
)
FINER = (CurvePoint(8, 16, 0.84, 8_000), CurvePoint(16, 16, 0.97, 16_000))


def test_a_measured_point_is_taken_as_it_is() -> None:
    assert choose(REFINED, 0.92) == RecallChoice(16, 4, 0.92, True)


def test_between_two_points_it_reads_off_the_chord_and_rounds_up() -> None:
    # 0.86 is half-way between 0.80 and 0.92: 12 lists; a little more: 13.
    assert choose(REFINED, 0.86).nprobe == 12
    found = choose(REFINED, 0.8601)
    assert found.nprobe == 13
    assert 0.8601 <= found.expected <= 0.92
    assert found.reached


def test_less_than_the_smallest_point_is_not_extrapolated() -> None:
    assert choose(REFINED, 0.01) == RecallChoice(1, 4, 0.40, True)


def test_refinement_is_paid_for() -> None:
    # Both reach 0.95; rescoring 16 * 10 vectors costs more than the lists that
    # it saves, unless those are many.
    cheap = choose((*REFINED, *FINER), 0.95)
    assert cheap.refine_factor == 16
    tight = choose((*REFINED[:3], CurvePoint(20, 4, 0.97, 20_000), *FINER), 0.95)
    assert (tight.nprobe, tight.refine_factor) == (19, 4)


def test_without_refinement_where_that_is_enough() -> None:
    assert choose((*PLAIN, *REFINED), 0.30).refine_factor is None


def test_out_of_reach_gives_the_best_there_is() -> None:
    assert choose(PLAIN, 0.95) == RecallChoice(64, None, 0.66, False)
    assert choose((*PLAIN, *REFINED, *FINER), 0.99) == RecallChoice(16, 16, 0.97, False)


def test_a_dip_is_not_relied_upon() -> None:
    curve = (
        CurvePoint(4, 4, 0.70, 4_000),
        CurvePoint(8, 4, 0.69, 8_000),
        CurvePoint(16, 4, 0.68, 16_000),
    )
    assert choose(curve, 0.685) == RecallChoice(4, 4, 0.70, True)
    assert choose(curve, 0.9) == RecallChoice(4, 4, 0.70, False)


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_a_recall_out_of_range_is_refused(recall: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        choose(REFINED, recall)
    assert refused.value.field == "recall"


def test_an_empty_curve_says_how_to_get_one() -> None:
    assert not RecallCurve(())
    with pytest.raises(InvalidInput, match="measured") as refused:
        choose((), 0.9)
    assert refused.value.hint is not None
    assert "index tune" in refused.value.hint


@pytest.mark.parametrize(
    ("nprobe", "factor", "expected"),
    [
        (8, 4, 0.80),
        (12, 4, 0.86),
        (5000, 4, 0.97),
        (7, 16, None),  # nothing was measured with fewer lists
        (8, 5, None),
        (8, None, None),
    ],
)
def test_what_settings_are_expected_to_reach(
    nprobe: int, factor: int | None, expected: float | None
) -> None:
    found = RecallCurve((*REFINED, *FINER)).expected(nprobe, factor)
    assert found == (None if expected is None else pytest.approx(expected))


points = st.builds(
    CurvePoint,
    st.integers(1, 4096),
    st.sampled_from([None, 1, 4, 16]),
    st.floats(0, 1),
    st.floats(0, 1e9),
)


@given(st.lists(points, min_size=1, max_size=20), st.floats(0.001, 1.0))
def test_a_choice_lies_within_what_was_measured(curve: list[CurvePoint], recall: float) -> None:
    found = choose(curve, recall)
    most = max(p.recall_at_10 for p in curve)
    same = [p for p in curve if p.refine_factor == found.refine_factor]
    assert found.reached == (most >= recall)
    assert min(p.nprobe for p in same) <= found.nprobe <= max(p.nprobe for p in same)
    assert found.expected >= recall if found.reached else found.expected == most
    # No single measured point does it for less.
    enough = [p for p in same if p.recall_at_10 >= recall]
    assert all(found.nprobe <= p.nprobe for p in enough)


@given(st.floats(0.31, 0.97), st.floats(0.31, 0.97))
def test_a_higher_wish_never_scans_less(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert choose(REFINED, low).nprobe <= choose(REFINED, high).nprobe
