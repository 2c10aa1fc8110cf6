"""What a filter passes, and how many lists that takes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages.row_filter import Reach, RowFilter, RowFilters, reach_of
from coordinator.types import FilterTerm
from ragschema.errors import InvalidInput

BITMAP = np.zeros(0, np.uint8)


def passing(rows: int, live: int) -> RowFilter:
    return RowFilter(BITMAP, rows, rows / live)


class Snapshot:
    """Counts how often it is read."""

    class manifest:
        live_rows = 20

    def __init__(self) -> None:
        self.reads = 0

    def filter_bitmap(self, terms: tuple[FilterTerm, ...]) -> Any:
        self.reads += 1
        if terms[0].op == "gt":
            raise InvalidInput("no order", field="year")
        return np.array([0b1011, 0, 0b10000000], np.uint8)


def test_a_filter_knows_its_selectivity_and_is_remembered() -> None:
    snapshot = Snapshot()
    filters = RowFilters(cast(Any, snapshot))
    terms = (FilterTerm("year", "in", (2001,)),)
    assert filters.known(terms) is None
    found = filters.find(terms)
    assert (found.passing, found.selectivity) == (4, 0.2)
    assert filters.known(terms) is found
    assert snapshot.reads == 1
    # 2001 and 2001.0 are equal to Python, not to a filter.
    assert filters.known((FilterTerm("year", "in", (2001.0,)),)) is None


def test_a_refused_filter_is_not_remembered() -> None:
    filters = RowFilters(cast(Any, Snapshot()))
    terms = (FilterTerm("year", "gt", (True,)),)
    with pytest.raises(InvalidInput):
        filters.find(terms)
    assert filters.known(terms) is None


def test_no_filter_and_a_filter_for_nothing_change_nothing() -> None:
    assert reach_of(8, 1024, None, 1.0) == Reach(8, 8)
    assert reach_of(8, 1024, passing(0, 10**6), 1.0) == Reach(8, 8)


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        (1_000_000, 8),  # everything passes
        (800_000, 12),
        (500_000, 24),
        (100_000, 120),
        (9_000, 1024),
        (4_096, 1024),
        (1, 1024),
    ],
)
def test_lists_grow_as_fewer_rows_pass(rows: int, first: int) -> None:
    assert reach_of(8, 1024, passing(rows, 10**6), 1.0) == Reach(first, 1024)


def test_the_limit_bounds_the_growth_but_not_the_request() -> None:
    assert reach_of(8, 1024, passing(50_000, 10**6), 0.1) == Reach(103, 103, limited=True)
    assert reach_of(8, 1024, passing(200_000, 10**6), 0.1) == Reach(60, 103)
    assert reach_of(500, 1024, passing(9, 10**6), 0.1) == Reach(500, 500, limited=True)


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(0, 10**6),
    st.floats(1e-6, 1),
)
def test_a_reach_is_in_order(nprobe: int, nlist: int, rows: int, share: float) -> None:
    nprobe = min(nprobe, nlist)
    reach = reach_of(nprobe, nlist, passing(rows, 10**6), share)
    assert nprobe <= reach.first <= reach.most <= nlist
