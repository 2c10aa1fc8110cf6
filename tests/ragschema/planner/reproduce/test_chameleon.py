"""Chameleon's shares and scaling within the bounds that the documentation states."""

from __future__ import annotations

from ragschema.planner.reproduce.chameleon import growth, inputs, medians_s, share_error_points


def test_shares_are_within_two_points() -> None:
    assert len(inputs().configurations) == 6
    assert share_error_points() <= 2.0


def test_growth_to_128_nodes_is_within_a_tenth() -> None:
    figures = growth()
    assert [f.paper for f in figures] == [54.5, 7.9]
    assert max(abs(f.raw_error_pct) for f in figures) <= 10.0


def test_more_nodes_never_answer_sooner() -> None:
    for by_nodes in medians_s().values():
        values = list(by_nodes.values())
        assert values == sorted(values)
        assert values[-1] > values[0]
