"""Several: searches of one question's queries become one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from coordinator.types import Coverage, Hit, SearchOutcome, Timings, Usage


def joined(outcomes: Sequence[SearchOutcome], queries: tuple[str, ...], k: int) -> SearchOutcome:
    """The k nearest hits of all, each once; ties by row id.

    The searches ran side by side: of each stage the longest time counts. A shard
    that one of them missed is missing from the whole.
    """
    first = outcomes[0]
    best: dict[int, Hit] = {}
    for hit in (hit for outcome in outcomes for hit in outcome.hits):
        row = hit.chunk.row_id
        if row not in best or hit.score > best[row].score:
            best[row] = hit
    ranked = sorted(best.values(), key=lambda hit: (-hit.score, hit.chunk.row_id))
    missing = sorted({name for outcome in outcomes for name in outcome.coverage.missing})
    return replace(
        first,
        hits=tuple(ranked[:k]),
        coverage=Coverage(min(o.coverage.fraction for o in outcomes), tuple(missing)),
        timings=_longest([outcome.timings for outcome in outcomes]),
        usage=Usage(embed_tokens=sum(outcome.usage.embed_tokens for outcome in outcomes)),
        retrieval=replace(first.retrieval, queries=queries),
    )


def _longest(timings: Sequence[Timings]) -> Timings:
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(Timings)):
        values = [getattr(one, name) for one in timings]
        found[name] = max((value for value in values if value is not None), default=None)
    return Timings(**found)
