"""Filters against a plain Python reading of the same conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.collections.filters import cache_key, matching_rows
from coordinator.collections.snapshot import Snapshot
from coordinator.types import FilterScalar, FilterTerm
from ragschema.errors import InvalidInput
from tests.coordinator.collections.making import Doc, make_collection

DOCS = (
    Doc("a", ("t", "t"), {"year": 2019, "tag": "red", "ok": True, "score": 0.5}),
    Doc("b", ("t",), {"year": 2020, "tag": "blue", "ok": False}),
    Doc("c", ("t",), {"year": 2020.5, "tag": "Red"}),
    Doc("d", ("t",)),
)


def rows_of(tmp_path: Path, *terms: FilterTerm) -> list[int]:
    snapshot = Snapshot.open(make_collection(tmp_path, "c", DOCS).directory("c"))
    bitmap = snapshot.filter_bitmap(terms)
    snapshot.close()
    assert bitmap.dtype == np.uint8
    assert bitmap.shape == (1,)
    return [i for i in range(8) if bitmap[i >> 3] >> (i & 7) & 1]


@pytest.mark.parametrize(
    ("term", "rows"),
    [
        (FilterTerm("tag", "in", ("red", "blue")), [0, 1, 2]),
        (FilterTerm("tag", "ne", ("red",)), [2, 3]),
        (FilterTerm("tag", "gt", ("Red",)), [0, 1, 2]),
        (FilterTerm("year", "in", (2020,)), [2]),
        (FilterTerm("year", "in", (2020.0,)), [2]),
        (FilterTerm("year", "gte", (2020,)), [2, 3]),
        (FilterTerm("year", "gt", (2020,)), [3]),
        (FilterTerm("year", "lt", (2020.5,)), [0, 1, 2]),
        (FilterTerm("year", "lte", (2019,)), [0, 1]),
        (FilterTerm("ok", "in", (True,)), [0, 1]),
        (FilterTerm("ok", "ne", (True,)), [2]),
        (FilterTerm("document", "in", ("a", "d", "zz")), [0, 1, 4]),
        (FilterTerm("document", "ne", ("a",)), [2, 3, 4]),
        (FilterTerm("document", "gte", ("c",)), [3, 4]),
        (FilterTerm("nobody", "in", ("x",)), []),
        (FilterTerm("nobody", "ne", ("x",)), []),
    ],
)
def test_one_condition(tmp_path: Path, term: FilterTerm, rows: list[int]) -> None:
    assert rows_of(tmp_path, term) == rows


def test_conditions_are_anded_and_none_means_all(tmp_path: Path) -> None:
    both = (FilterTerm("year", "gte", (2020,)), FilterTerm("tag", "in", ("blue",)))
    assert rows_of(tmp_path / "1", *both) == [2]
    assert rows_of(tmp_path / "2") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (FilterTerm("year", "in", ("2020",)), "number"),
        (FilterTerm("year", "in", (True,)), "boolean"),
        (FilterTerm("ok", "in", (1,)), "boolean"),
        (FilterTerm("tag", "lt", (3,)), "string"),
        (FilterTerm("document", "in", (3,)), "string"),
        (FilterTerm("ok", "gt", (True,)), "booleans"),
        (FilterTerm("year", "gt", (1, 2)), "2 values"),
        (FilterTerm("year", "in", ()), "0 values"),
        (FilterTerm("year", "gt", (float("nan"),)), "NaN"),
        (FilterTerm("year", "like", (1,)), "operator"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, term: FilterTerm, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        rows_of(tmp_path, term)
    assert caught.value.field == f"filters.{term.field}"


def test_equal_looking_values_of_other_kinds_are_cached_apart(tmp_path: Path) -> None:
    snapshot = Snapshot.open(make_collection(tmp_path, "c", DOCS).directory("c"))
    snapshot.filter_bitmap((FilterTerm("ok", "in", (True,)),))
    with pytest.raises(InvalidInput):
        snapshot.filter_bitmap((FilterTerm("ok", "in", (1,)),))
    assert cache_key((FilterTerm("a", "in", (1,)),)) != cache_key((FilterTerm("a", "in", (1.0,)),))
    snapshot.close()


def test_a_returned_bitmap_cannot_spoil_the_cache(tmp_path: Path) -> None:
    snapshot = Snapshot.open(make_collection(tmp_path, "c", DOCS).directory("c"))
    with pytest.raises(ValueError, match="read-only"):
        snapshot.filter_bitmap(())[0] = 0
    snapshot.close()


SCALARS = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.floats(-3, 3), st.booleans())


@given(
    values=st.lists(SCALARS, min_size=1, max_size=8),
    op=st.sampled_from(["in", "ne", "gt", "gte", "lt", "lte"]),
    wanted=SCALARS,
)
def test_random_conditions(values: list[FilterScalar], op: str, wanted: FilterScalar) -> None:
    def kind(value: FilterScalar) -> type:
        if isinstance(value, bool):
            return bool
        return str if isinstance(value, str) else float

    term = FilterTerm("f", op, (wanted,))  # type: ignore[arg-type]
    ranges = [(i, 1, value) for i, value in enumerate(values)]
    ordered = op in ("gt", "gte", "lt", "lte")
    if kind(wanted) not in {kind(v) for v in values} or (ordered and kind(wanted) is bool):
        with pytest.raises(InvalidInput):
            matching_rows(term, ranges, len(values))
        return
    answer = {
        "in": lambda v: v == wanted,
        "ne": lambda v: v != wanted,
        "gt": lambda v: v > wanted,
        "gte": lambda v: v >= wanted,
        "lt": lambda v: v < wanted,
        "lte": lambda v: v <= wanted,
    }[op]
    expected = [int(kind(v) is kind(wanted) and answer(v)) for v in values]
    assert matching_rows(term, ranges, len(values)).tolist() == expected
