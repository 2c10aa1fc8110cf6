"""Measuring how much of the truth an index finds, and at what cost.

A query's truth is its k nearest rows by exact comparison. Of the rows that the
scan finds, in order of PQ distance, the first f k are what refinement with
factor f would rescore; exact distances rank the true ones first, so the recall
of every factor follows from one scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput
from ragschema.storage.manifest import CurvePoint
from ragschema.types import F32, I32, I64, SearchBatch, SearchResult
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import ShardSet

#: Called with a batch; what the engine answers.
Search = Callable[[SearchBatch], SearchResult]

#: Curves are of the ten nearest.
CURVE_K = 10
FACTORS = (2, 4, 6, 8, 12, 16)
#: Rows as far away as the k-th nearest count as found; so many are known of.
_TIES = 64
_TIE_SLACK = 1e-5
_PIECE_QUERIES = 128
_MOST_K = 1024
#: Two steps in a row that gain less end a curve.
_GAIN = 0.0005


@dataclass(frozen=True, eq=False)
class Questions:
    """Queries and what they should find.

    Attributes:
        queries: float32 [n, dim].
        own: int64 [n], the row a query was taken from, -1 for none; not counted.
        near: int64 [n, w], rows as near as the k-th true neighbour or nearer, -1
            past them.
        k: true neighbours that count.
    """

    queries: F32
    own: I64
    near: I64
    k: int


def ladder(nlist: int) -> list[int]:
    """Values of nprobe to try, ascending, ending with all lists."""
    steps = [s for e in range(20) for s in (1 << e, 3 << e >> 1) if s and s < nlist]
    return [*sorted(set(steps)), nlist]


def width_for(k: int) -> int:
    """Rows that ``questions_of`` wants of an exact search."""
    return min(k + _TIES + 1, _MOST_K)


def questions_of(
    queries: F32, own: I64, distances: F32, rows: I64, counts: I32, k: int
) -> Questions:
    """Questions from an exact search.

    Args:
        own: int64 [n], rows that do not count, -1 for none.
        distances, rows, counts: [n, ``width_for(k)``], what the search found.
    """
    past = np.arange(rows.shape[1])[None, :] >= counts[:, None]
    mine = (rows == own[:, None]) & (own[:, None] >= 0)
    ranked = np.where(past | mine, np.inf, distances.astype(np.float64))
    border = np.sort(ranked, axis=1)[:, min(k, rows.shape[1]) - 1]
    slack = _TIE_SLACK * np.maximum(np.abs(border), 1e-12)
    near = np.isfinite(ranked) & ~(ranked > (border + slack)[:, None])
    return Questions(queries, own, np.where(near, rows, -1), k)


def given(queries: F32, truth: I64, k: int) -> Questions:
    """Questions whose true neighbours, int64 [n, at least k], somebody else found.

    Raises:
        InvalidInput: the shapes do not fit.
    """
    if truth.ndim != 2 or len(truth) != len(queries) or truth.shape[1] < k:
        raise InvalidInput(
            f"truth is {list(truth.shape)} for {len(queries)} queries",
            field="truth",
            hint=f"give int64 [{len(queries)}, {k}] or wider, row ids, nearest first",
        )
    none = np.full(len(queries), -1, dtype=np.int64)
    return Questions(queries, none, np.ascontiguousarray(truth[:, :k]), k)


def curve(
    shard_set: ShardSet,
    search: Search,
    questions: Sequence[Questions],
    *,
    refine: bool,
    steps: Sequence[int],
    enough: float,
    codes_scale: float = 1.0,
    on_step: Callable[[int], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Recall and cost for every nprobe of ``steps`` until it is high enough, or grows no more.

    Args:
        questions: kinds of queries with the same k; the worst recall of them counts.
        refine: stored vectors may be used: also measure every refine factor.
        enough: recall beyond which more lists are not tried.
        codes_scale: rows of the collection per row measured.
        on_step: called with the number of steps done.
    """
    points: list[CurvePoint] = []
    tops: list[float] = []
    for number, step in enumerate(steps):
        if on_step is not None:
            on_step(number)
        measured = [_recalls(shard_set, search, q, step, refine) for q in questions]
        codes = float(np.mean([cost for _, cost in measured])) * codes_scale
        worst = [min(values) for values in zip(*(r for r, _ in measured), strict=True)]
        factors: list[int | None] = [None, *(_factors(questions[0].k) if refine else [])]
        points += [
            CurvePoint(step, factor, recall, codes)
            for factor, recall in zip(factors, worst, strict=True)
        ]
        tops.append(max(worst))
        flat = len(tops) > 2 and tops[-1] - tops[-3] < _GAIN
        if tops[-1] >= enough or flat:
            break
    return tuple(points)


def _factors(k: int) -> list[int]:
    return [f for f in FACTORS if f * k + 1 <= _MOST_K]


def _recalls(
    shard_set: ShardSet, search: Search, questions: Questions, nprobe: int, refine: bool
) -> tuple[list[float], float]:
    """Recall without refinement, then for every factor; and codes per query."""
    index = shard_set.index
    assert index is not None, "only an index is measured"
    k = questions.k
    depths = [k, *(f * k for f in (_factors(k) if refine else []))]
    width = min(_MOST_K, max(depths) + 1)
    turned = index.rotate(questions.queries)
    lists = nearest_lists(turned, index.centroids, shard_set.metric, nprobe)
    batch = SearchBatch(
        shard_set.snapshot, tuple(shard_set.shards), questions.queries, lists, width
    )
    found = in_pieces(search, batch)
    true = _true(found, questions)
    own = (found.row_ids == questions.own[:, None]) & (questions.own[:, None] >= 0)
    # A query's own row takes no place among the candidates.
    place = np.arange(width)[None, :] - np.cumsum(own, axis=1)
    wanted = np.minimum(k, (questions.near >= 0).sum(axis=1))
    recalls = []
    for depth in depths:
        hits = (true & (place < depth)).sum(axis=1)
        recalls.append(float(np.mean(np.minimum(hits, wanted) / np.maximum(wanted, 1))))
    return recalls, found.stats.codes_scanned / len(questions.queries)


def _true(found: SearchResult, questions: Questions) -> NDArray[np.bool_]:
    """Which found rows are near ones: bool, as found."""
    true = np.zeros(found.row_ids.shape, dtype=np.bool_)
    for q, near in enumerate(questions.near):
        count = int(found.counts[q])
        true[q, :count] = np.isin(found.row_ids[q, :count], near[near >= 0])
    return true


def in_pieces(search: Search, batch: SearchBatch) -> SearchResult:
    """One answer out of small batches, which any backend takes."""
    n = len(batch.queries)
    parts = [
        search(_piece(batch, first, first + _PIECE_QUERIES))
        for first in range(0, n, _PIECE_QUERIES)
    ]
    scanned = sum(p.stats.codes_scanned for p in parts)
    return replace(
        parts[0],
        distances=np.concatenate([p.distances for p in parts]),
        row_ids=np.concatenate([p.row_ids for p in parts]),
        counts=np.concatenate([p.counts for p in parts]),
        stats=replace(parts[0].stats, codes_scanned=scanned),
    )


def _piece(batch: SearchBatch, first: int, last: int) -> SearchBatch:
    lists: I32 | None = None if batch.list_ids is None else batch.list_ids[first:last]
    return replace(batch, queries=batch.queries[first:last], list_ids=lists)
