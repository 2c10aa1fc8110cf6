"""One search from a checked batch to a result: scan, compare exactly, merge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragschema.types import F32, I32, U8, SearchBatch, SearchResult, SearchStats
from retrieval_node.backends.base import (
    Backend,
    Candidates,
    ScanRequest,
    merge_candidates,
    no_candidates,
)
from retrieval_node.cancel import Cancellation
from retrieval_node.checks import check_search
from retrieval_node.exact import ExactRequest, search_exact
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import ShardSet


class SearchEngine:
    """Searches loaded shards with one backend. Safe to call from several threads."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def pool(self) -> Any | None:
        """native.Pool of the backend's threads; None: the calling thread alone."""
        return self.backend.pool

    def load(self, shard_set: ShardSet) -> None:
        """Makes the shards searchable; see ``Backend.load``."""
        self.backend.load(shard_set)

    def search(
        self, shard_set: ShardSet, batch: SearchBatch, cancel: Cancellation | None = None
    ) -> SearchResult:
        """Nearest rows per query, by (distance, row id).

        Raises:
            InvalidInput, IncompatibleRequest, NotFound: see ``checks``.
            Cancelled, DeadlineExceeded: ``cancel`` asked for it.
            CorruptData: stored bytes are not what was written.
        """
        check_search(shard_set, batch)
        started = time.perf_counter()
        if not len(batch.queries):
            found, scanned_bytes = no_candidates(0, batch.k), 0
        elif batch.exact or shard_set.index is None:
            found, scanned_bytes = self._exact(shard_set, batch, cancel)
        else:
            found, scanned_bytes = self._indexed(shard_set, batch, cancel)
        return SearchResult(
            distances=found.distances,
            row_ids=found.rows,
            counts=found.counts,
            rows_covered=sum(shard_set.shards[s].live_rows for s in batch.shards),
            stats=SearchStats(
                codes_scanned=found.codes_scanned,
                bytes_scanned=scanned_bytes,
                survivors=found.survivors,
                batch_queries=len(batch.queries),
                scan_us=int((time.perf_counter() - started) * 1e6),
            ),
        )

    def _exact(
        self, shard_set: ShardSet, batch: SearchBatch, cancel: Cancellation | None
    ) -> tuple[Candidates, int]:
        segments = segments_of(shard_set, batch.shards)
        filters, filter_of = _filters(batch)
        request = ExactRequest(
            queries=contiguous(batch.queries),
            k=batch.k,
            metric=shard_set.metric,
            live=shard_set.live,
            filters=filters,
            filter_of=filter_of,
            cancel=cancel,
        )
        found = search_exact(segments, request, self.pool)
        return found, found.codes_scanned * _vector_bytes(segments)

    def _indexed(
        self, shard_set: ShardSet, batch: SearchBatch, cancel: Cancellation | None
    ) -> tuple[Candidates, int]:
        assert batch.list_ids is not None, "checked before"
        filters, filter_of = _filters(batch)
        return self.find(
            shard_set,
            scan_request(
                shard_set,
                batch.shards,
                contiguous(batch.queries),
                np.ascontiguousarray(batch.list_ids, dtype=np.int32),
                k=batch.k,
                refine_k=batch.refine_k,
                filters=filters,
                filter_of=filter_of,
                cancel=cancel,
            ),
        )

    def find(self, shard_set: ShardSet, request: ScanRequest) -> tuple[Candidates, int]:
        """The scan of an indexed collection and the bytes it read.

        Fresh segments have no codes yet; all their rows are compared exactly,
        whatever lists were probed.

        Raises:
            As ``search``; the request is not checked.
        """
        index = shard_set.index
        assert index is not None, "an exact collection has no codes"
        found = self.backend.search(shard_set, request)
        scanned = found.codes_scanned * index.m
        fresh = [s for s in segments_of(shard_set, request.shards) if s.exact]
        if not fresh:
            return found, scanned
        exact = ExactRequest(
            queries=request.refine_queries,
            k=request.k,
            metric=shard_set.metric,
            live=request.live,
            filters=request.filters,
            filter_of=request.filter_of,
            cancel=request.cancel,
        )
        compared = search_exact(fresh, exact, self.pool)
        merged = merge_candidates([found, compared], request.k)
        return merged, scanned + compared.codes_scanned * _vector_bytes(fresh)


def segments_of(shard_set: ShardSet, shards: Sequence[int]) -> list[SegmentRows]:
    """The segments of some shards, in order."""
    return [segment for number in shards for segment in shard_set.shards[number].segments]


def scan_request(
    shard_set: ShardSet,
    shards: tuple[int, ...],
    queries: F32,
    lists: I32 | Callable[[F32], I32],
    *,
    k: int,
    refine_k: int | None = None,
    filters: U8 | None = None,
    filter_of: I32 | None = None,
    cancel: Cancellation | None = None,
) -> ScanRequest:
    """A request to a backend.

    Args:
        queries: float32 [n, input dim], C-contiguous.
        lists: int32 [n, nprobe], C-contiguous, or what finds them for the rotated queries.
    """
    assert shard_set.index is not None, "an exact collection has no lists"
    rotated = shard_set.index.rotate(queries)
    return ScanRequest(
        shards=shards,
        queries=rotated,
        refine_queries=queries,
        lists=lists(rotated) if callable(lists) else lists,
        k=k,
        refine_k=refine_k,
        live=shard_set.live,
        filters=filters,
        filter_of=filter_of,
        cancel=cancel,
    )


def contiguous(queries: F32) -> F32:
    """The queries as compiled code reads them; no copy where they are so already."""
    return np.ascontiguousarray(queries, dtype=np.float32)


def _filters(batch: SearchBatch) -> tuple[U8 | None, I32 | None]:
    """Bitmaps uint8 [f, bytes] and each query's number, or None where nothing is filtered."""
    if batch.filter_of is None or not batch.filters:
        return None, None
    # A bitmap may be large: the usual one is not copied.
    one = len(batch.filters) == 1 and batch.filters[0].flags.c_contiguous
    stacked = batch.filters[0][None, :] if one else np.stack(batch.filters)
    return stacked, np.ascontiguousarray(batch.filter_of, dtype=np.int32)


def _vector_bytes(segments: Sequence[SegmentRows]) -> int:
    """Of one stored vector; segments of a collection that differ count as the largest."""
    sizes = [
        segment.vectors.shape[1] * segment.vectors.itemsize
        for segment in segments
        if segment.vectors is not None
    ]
    return max(sizes, default=0)
