"""Comparing queries with stored vectors, every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragschema.types import F32, I32, U8, Metric
from retrieval_node.backends.base import (
    Candidates,
    blank_tail,
    merge_candidates,
    no_candidates,
)
from retrieval_node.cancel import Cancellation
from retrieval_node.fixedpoint import exact_distances, smallest
from retrieval_node.found import native_metric, to_candidates
from retrieval_node.native.loader import native
from retrieval_node.segment import SegmentRows


@dataclass(frozen=True, eq=False)
class ExactRequest:
    """An exact search of one batch; fields as in ``ScanRequest``.

    Attributes:
        queries: float32 [n, input dim], C-contiguous.
    """

    queries: F32
    k: int
    metric: Metric
    live: U8 | None = None
    filters: U8 | None = None
    filter_of: I32 | None = None
    cancel: Cancellation | None = None


def search_exact(
    segments: Sequence[SegmentRows], request: ExactRequest, pool: Any | None
) -> Candidates:
    """The k nearest live rows of the segments by (``fixedpoint.exact_distances``, row id).

    Args:
        segments: all with stored vectors.
        pool: native.Pool; None for the calling thread alone.

    Raises:
        Cancelled, DeadlineExceeded: ``request.cancel`` asked for it.
        CorruptData: stored bytes are not what was written.
    """
    module = native()
    if module is None:
        return _reference(segments, request)
    found = module.exact_search(
        [segment.handle for segment in segments],
        request.queries,
        request.k,
        native_metric(request.metric),
        module.Pool(1) if pool is None else pool,
        live=request.live,
        filters=request.filters,
        filter_of=request.filter_of,
        cancel=None if request.cancel is None else request.cancel.handle,
    )
    return to_candidates(found, segments)


def _reference(segments: Sequence[SegmentRows], request: ExactRequest) -> Candidates:
    """Where the extension is missing: slow and right."""
    parts = [no_candidates(len(request.queries), request.k)]
    for segment in segments:
        if request.cancel is not None:
            request.cancel.check()
        parts.append(_reference_segment(segment, request))
    return merge_candidates(parts, request.k)


def _reference_segment(segment: SegmentRows, request: ExactRequest) -> Candidates:
    assert segment.vectors is not None, "an exact search reads vectors"
    ids = segment.row_ids()
    segment.file.ensure_array("vectors")
    vectors = segment.vectors.astype(np.float32)
    n, k = len(request.queries), request.k
    distances, rows = np.zeros((n, k), np.float32), np.zeros((n, k), np.int64)
    counts = np.zeros(n, np.int32)
    for q in range(n):
        keep = np.ones(len(ids), dtype=np.bool_)
        bitmaps = [request.live]
        if request.filters is not None and request.filter_of is not None:
            chosen = int(request.filter_of[q])
            bitmaps.append(request.filters[chosen] if chosen >= 0 else None)
        for bitmap in bitmaps:
            if bitmap is not None:
                keep &= (bitmap[ids >> 3] >> (ids & 7).astype(np.uint8)) & 1 == 1
        found = exact_distances(request.queries[q], vectors[keep], request.metric)
        best = smallest(found, ids[keep], k)
        counts[q] = len(best)
        distances[q, : len(best)], rows[q, : len(best)] = found[best], ids[keep][best]
    return blank_tail(distances, rows, counts, n * len(ids))
