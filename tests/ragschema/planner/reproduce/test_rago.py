"""The paper's table 4 within the bounds that the documentation states."""

from __future__ import annotations

import itertools

from ragschema.planner.reproduce.figure import Figure
from ragschema.planner.reproduce.rago import query_scaling, table_4


def test_table_4_is_within_five_per_cent() -> None:
    figures = table_4()
    assert len(figures) == 8
    assert max(f.error_pct for f in figures) < 5.0


def test_queries_halve_the_rate_of_the_small_model_only() -> None:
    scaling = query_scaling()
    small, large = scaling["llama-3-8b"], scaling["llama-3-70b"]
    assert [round(a / b, 2) for a, b in itertools.pairwise(small)] == [2.0, 2.0, 2.0]
    assert large[0] == large[1] == large[2]
    assert large[3] < 0.7 * large[2]


def test_rounding_of_the_paper_is_no_error() -> None:
    assert Figure("x", 0.03, 0.034, 0.005).error_pct == 0.0
    assert round(Figure("x", 2.0, 2.2, 0.05).error_pct, 6) == 7.5
    assert round(Figure("x", 2.0, 2.2, 0.05).raw_error_pct, 6) == 10.0
