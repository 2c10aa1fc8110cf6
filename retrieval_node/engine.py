"""One search from a checked batch to a result: scan, refine, merge."""

from __future__ import annotations

import time

import numpy as np

from ragschema.types import I32, U8, Metric, SearchBatch, SearchResult, SearchStats
from retrieval_node import flat
from retrieval_node.backends.base import (
    Backend,
    Candidates,
    Checkpoint,
    ScanRequest,
    blank_tail,
    merge_candidates,
    never_stop,
)
from retrieval_node.checks import check_search
from retrieval_node.shard import ShardSet

_FLAT_PIECE = 32


class SearchEngine:
    """Searches loaded shards with one backend. Safe to call from several threads."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def load(self, shard_set: ShardSet) -> None:
        """Makes the shards searchable; see ``Backend.load``."""
        self.backend.load(shard_set)

    def search(
        self, shard_set: ShardSet, batch: SearchBatch, checkpoint: Checkpoint = never_stop
    ) -> SearchResult:
        """Nearest rows per query, by (distance, row id).

        Raises:
            InvalidInput, IncompatibleRequest, NotFound: see ``checks``.
            Cancelled, DeadlineExceeded: raised by the checkpoint.
        """
        check_search(shard_set, batch)
        started = time.perf_counter()
        refined = started
        if not len(batch.queries):
            found = _no_candidates(batch.k)
        elif shard_set.index is None:
            found = _search_flat(shard_set, batch, checkpoint)
            refined = time.perf_counter()
        else:
            request = _scan_request(batch, checkpoint)
            found = self.backend.scan(shard_set, request)
            refined = time.perf_counter()
            if batch.refine_k is not None:
                found = _refine(shard_set, request, found, batch.k)
        ended = time.perf_counter()
        code_bytes = shard_set.dim * 4 if shard_set.index is None else shard_set.index.m
        return SearchResult(
            distances=found.distances,
            row_ids=found.rows,
            counts=found.counts,
            rows_covered=sum(shard_set.shards[s].live_rows for s in batch.shards),
            stats=SearchStats(
                codes_scanned=found.codes_scanned,
                bytes_scanned=found.codes_scanned * code_bytes,
                scan_us=int((refined - started) * 1e6),
                refine_us=int((ended - refined) * 1e6),
            ),
        )


def _no_candidates(k: int) -> Candidates:
    """The answer to a batch without queries, which no backend has to know of."""
    return Candidates(
        np.zeros((0, k), np.float32), np.zeros((0, k), np.int64), np.zeros(0, np.int32)
    )


def _filters(batch: SearchBatch) -> tuple[U8, I32]:
    n = len(batch.queries)
    if batch.filter_of is None or not batch.filters:
        return np.zeros((1, 1), dtype=np.uint8), np.full(n, -1, dtype=np.int32)
    return np.stack(batch.filters), np.array(batch.filter_of, dtype=np.int32)


def _scan_request(batch: SearchBatch, checkpoint: Checkpoint) -> ScanRequest:
    assert batch.list_ids is not None, "checked before"
    wanted = batch.list_ids >= 0
    starts = np.zeros(len(batch.queries) + 1, dtype=np.int64)
    np.cumsum(wanted.sum(axis=1), out=starts[1:])
    filters, filter_of = _filters(batch)
    return ScanRequest(
        shards=batch.shards,
        queries=np.require(batch.queries, dtype=np.float32, requirements=["C", "A", "W"]),
        lists=batch.list_ids[wanted].astype(np.int64),
        starts=starts,
        k=batch.k if batch.refine_k is None else batch.refine_k,
        filters=filters,
        filter_of=filter_of,
        checkpoint=checkpoint,
    )


def _search_flat(shard_set: ShardSet, batch: SearchBatch, checkpoint: Checkpoint) -> Candidates:
    filters, filter_of = _filters(batch)
    queries = np.require(batch.queries, dtype=np.float32, requirements=["C", "A", "W"])
    n, k = len(queries), batch.k
    parts = []
    for number in batch.shards:
        shard = shard_set.shards[number]
        assert shard.rows.vectors is not None, "exact shards hold vectors"
        distances = np.zeros((n, k), dtype=np.float32)
        rows = np.zeros((n, k), dtype=np.int64)
        counts = np.zeros(n, dtype=np.int32)
        for at in range(0, n, _FLAT_PIECE):
            checkpoint()
            some = slice(at, at + _FLAT_PIECE)
            flat.flat_scan(
                queries[some], shard.rows.vectors, shard.rows.ids, shard.alive, filters,
                filter_of[some], shard_set.metric is Metric.L2,
                distances[some], rows[some], counts[some],
            )  # fmt: skip
        parts.append(blank_tail(distances, rows, counts, n * len(shard.rows.ids)))
    return merge_candidates(parts, k)


def _refine(shard_set: ShardSet, request: ScanRequest, found: Candidates, k: int) -> Candidates:
    """Rescores the candidates with the stored float16 vectors, in float32."""
    past = np.arange(found.rows.shape[1])[None, :] >= found.counts[:, None]
    distances = np.zeros(found.distances.shape, dtype=np.float32)
    for number in request.shards:
        request.checkpoint()
        rows = shard_set.shards[number].rows
        assert rows.vectors is not None, "a refined shard holds vectors"
        positions = np.where(past, -1, rows.positions(found.rows))
        squared = shard_set.metric is Metric.L2
        halves = rows.vectors.view(np.uint16)
        flat.rescore_half(request.queries, halves, positions, squared, distances)
    order = np.lexsort((found.rows, distances, past), axis=-1)[:, :k]
    return blank_tail(
        np.take_along_axis(distances, order, axis=1),
        np.take_along_axis(found.rows, order, axis=1),
        np.minimum(found.counts, k).astype(np.int32),
        found.codes_scanned,
    )
