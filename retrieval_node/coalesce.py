"""Searches of several callers as one kernel batch, and its answer cut apart again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.types import I32, U8, SearchBatch, SearchResult, SearchStats


@dataclass(frozen=True)
class CoalesceLimits:
    """How far searches are put together.

    Attributes:
        max_batch: queries of one kernel call; a request with more runs alone.
        max_wait_us: how long an idle worker waits for more company; 0 puts
            together only what queued while the worker was busy.

    Raises:
        InvalidInput: a limit that cannot be.
    """

    max_batch: int = 256
    max_wait_us: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("max_batch", 1, 65536), ("max_wait_us", 0, 1_000_000)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidInput(f"{value} is not in {least}..{most}", field=f"coalesce.{name}")


def batch_key(batch: SearchBatch) -> Hashable:
    """Searches of one loaded snapshot with equal keys may share a kernel call.

    k, the number of lists and the filters may differ.
    """
    has_lists = batch.list_ids is not None
    return batch.snapshot, batch.shards, batch.refine_k, batch.exact, has_lists


def merge(batches: Sequence[SearchBatch]) -> SearchBatch:
    """One batch for all, in order: the largest k, lists padded, filters in a row."""
    first = batches[0]
    if len(batches) == 1:
        return first
    filters, filter_of = _merged_filters(batches)
    return replace(
        first,
        queries=np.concatenate([b.queries for b in batches]),
        list_ids=_merged_lists(batches),
        k=max(b.k for b in batches),
        filters=filters,
        filter_of=filter_of,
    )


def _merged_lists(batches: Sequence[SearchBatch]) -> I32 | None:
    if batches[0].list_ids is None:
        return None
    each = [b.list_ids for b in batches if b.list_ids is not None]
    width = max(lists.shape[1] for lists in each)
    if all(lists.shape[1] == width for lists in each):
        return np.concatenate(each)
    merged = np.full((sum(map(len, each)), width), -1, dtype=np.int32)
    at = 0
    for lists in each:
        merged[at : at + len(lists), : lists.shape[1]] = lists
        at += len(lists)
    return merged


def _merged_filters(batches: Sequence[SearchBatch]) -> tuple[tuple[U8, ...], I32 | None]:
    filters: list[U8] = []
    chosen: list[I32] = []
    for batch in batches:
        if batch.filter_of is None or not batch.filters:
            chosen.append(np.full(len(batch.queries), -1, dtype=np.int32))
            continue
        chosen.append(np.where(batch.filter_of >= 0, batch.filter_of + np.int32(len(filters)), -1))
        filters.extend(batch.filters)
    return (tuple(filters), np.concatenate(chosen).astype(np.int32)) if filters else ((), None)


def split(result: SearchResult, batches: Sequence[SearchBatch]) -> list[SearchResult]:
    """Each batch's part of the answer, as views.

    The k nearest are the first of any larger number of nearest, because ties
    are ordered by row id. Work is shared out by lists scanned, times are whole.
    """
    if len(batches) == 1:
        stats = replace(result.stats, batch_queries=len(batches[0].queries))
        return [replace(result, stats=stats)]
    parts = []
    at = 0
    for batch, stats in zip(batches, _shares(result.stats, batches), strict=True):
        rows = slice(at, at + len(batch.queries))
        at = rows.stop
        counts = result.counts[rows]
        parts.append(
            replace(
                result,
                distances=result.distances[rows, : batch.k],
                row_ids=result.row_ids[rows, : batch.k],
                counts=counts if batch.k == result.distances.shape[1] else _cut(counts, batch.k),
                stats=stats,
            )
        )
    return parts


def _cut(counts: I32, k: int) -> I32:
    return np.minimum(counts, np.int32(k))


def _shares(stats: SearchStats, batches: Sequence[SearchBatch]) -> list[SearchStats]:
    """Whole numbers that add up to what the batch did."""
    weights = [_weight(b) for b in batches]
    total = sum(weights) or 1
    queries = sum(len(b.queries) for b in batches)
    shares = []
    before = 0
    for weight in weights:
        after = before + weight
        worked = {
            name: getattr(stats, name) * after // total - getattr(stats, name) * before // total
            for name in ("codes_scanned", "bytes_scanned", "survivors")
        }
        shares.append(replace(stats, batch_queries=queries, **worked))
        before = after
    return shares


def _weight(batch: SearchBatch) -> int:
    if batch.list_ids is None:
        return len(batch.queries)
    return int(np.count_nonzero(batch.list_ids >= 0))
