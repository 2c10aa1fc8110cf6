"""Metadata filters of a request: {"field": value | [values] | {"gte": ..., "lt": ...}}."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from coordinator.types import FilterOp, FilterScalar, FilterTerm

MAX_FIELDS = 32
MAX_ALTERNATIVES = 256

FilterKey = Annotated[str, Field(min_length=1, max_length=128)]
FilterText = Annotated[str, Field(max_length=4096)]
FilterInt = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Scalar = FilterText | bool | FilterInt | float
Ordered = FilterText | FilterInt | float

_OPS: tuple[FilterOp, ...] = ("ne", "gt", "gte", "lt", "lte")


class FilterRange(TypedDict, total=False):
    """Bounds on one field, all of which must hold."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[misc]
    ne: Scalar
    gt: Ordered
    gte: Ordered
    lt: Ordered
    lte: Ordered


def _not_empty(wanted: FilterRange) -> FilterRange:
    if not wanted:
        raise PydanticCustomError("empty", "give at least one of ne, gt, gte, lt, lte")
    return wanted


Bounds = Annotated[
    FilterRange, Field(json_schema_extra={"minProperties": 1}), AfterValidator(_not_empty)
]
Alternatives = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_ALTERNATIVES)]
Filters = Annotated[
    dict[FilterKey, Scalar | Alternatives | Bounds],
    Field(
        max_length=MAX_FIELDS,
        description="conditions on metadata, all of which must hold; the key `document` is the id",
        examples=[{"lang": ["en", "de"], "year": {"gte": 2020, "lt": 2027}}],
    ),
]


FilterMap = dict[str, Scalar | list[Scalar] | FilterRange]


def filter_terms(filters: FilterMap) -> tuple[FilterTerm, ...]:
    """The terms a snapshot understands, in the order they were sent."""
    terms: list[FilterTerm] = []
    for field, wanted in filters.items():
        if isinstance(wanted, dict):
            bounds = cast(dict[str, FilterScalar], wanted)
            terms.extend(FilterTerm(field, op, (bounds[op],)) for op in _OPS if op in bounds)
        else:
            values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
            terms.append(FilterTerm(field, "in", values))
    return tuple(terms)
