"""Metadata conditions to bitmaps over rows.

Values compare within their kind only: strings with strings, numbers with
numbers, booleans with booleans (a boolean is not a number here). A document
without the field never matches, whatever the operator; nor does one whose
value is of another kind than the condition's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from coordinator.types import FilterScalar, FilterTerm
from ragschema.errors import InvalidInput
from ragschema.types import U8

Kind = Literal["string", "number", "boolean"]
#: first row, number of rows, value
ValueRange = tuple[int, int, FilterScalar]

DOCUMENT_FIELD = "document"
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "ne": operator.ne,
}


def kind_of(value: FilterScalar) -> Kind:
    """The kind within which a value compares."""
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def cache_key(terms: tuple[FilterTerm, ...]) -> tuple[object, ...]:
    """Tells 1, 1.0 and True apart, which compare equal in Python."""
    return tuple((t.field, t.op, tuple((type(v).__name__, v) for v in t.values)) for t in terms)


def check_term(term: FilterTerm) -> None:
    """Refuses conditions that no value could satisfy.

    Raises:
        InvalidInput: wrong number of values, an order over booleans, NaN.
    """
    where = f"filters.{term.field}"
    if term.op != "in" and term.op not in _ORDERS:
        raise InvalidInput(
            f"{term.op!r} is not an operator",
            field=where,
            hint="use in, ne, gt, gte, lt or lte",
        )
    if not term.values or (term.op != "in" and len(term.values) != 1):
        raise InvalidInput(f"{term.op} got {len(term.values)} values", field=where)
    if any(isinstance(v, float) and v != v for v in term.values):
        raise InvalidInput("NaN cannot be compared", field=where)
    if term.op not in ("in", "ne") and kind_of(term.values[0]) == "boolean":
        raise InvalidInput(
            f"{term.op} does not apply to booleans", field=where, hint='use "in" or "ne"'
        )


def matching_rows(term: FilterTerm, ranges: Iterable[ValueRange], rows: int) -> U8:
    """bool-like uint8 [rows]: 1 where the row's document satisfies the term.

    Raises:
        InvalidInput: the field exists, but holds no value of the term's kind.
    """
    check_term(term)
    mask = np.zeros(rows, dtype=np.uint8)
    seen: set[Kind] = set()
    accepts = _acceptor(term)
    for first, count, value in ranges:
        seen.add(kind_of(value))
        if accepts(value):
            mask[first : first + count] = 1
    for value in term.values:
        if seen and kind_of(value) not in seen:
            raise InvalidInput(
                f"{value!r} is a {kind_of(value)}, but this field holds"
                f" {' and '.join(sorted(seen))} values",
                field=f"filters.{term.field}",
                hint=f"compare it with a {min(seen)}",
            )
    return mask


def _acceptor(term: FilterTerm) -> Callable[[FilterScalar], bool]:
    if term.op == "in":
        wanted = {(kind_of(v), v) for v in term.values}
        return lambda value: (kind_of(value), value) in wanted
    compare, limit = _ORDERS[term.op], term.values[0]
    kind = kind_of(limit)
    return lambda value: kind_of(value) == kind and compare(value, limit)
