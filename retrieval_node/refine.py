"""Rescoring candidates with stored vectors, for backends that do not do it themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I64, Metric
from retrieval_node.backends.base import Candidates, ScanRequest, blank_tail
from retrieval_node.fixedpoint import exact_distances, smallest
from retrieval_node.found import native_metric, to_candidates
from retrieval_node.native.loader import native
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import ShardSet


def refine(shard_set: ShardSet, request: ScanRequest, found: Candidates) -> Candidates:
    """The best k of the found rows by (exact distance, row id).

    Distances are those of ``fixedpoint.exact_distances`` to the stored values.
    Without a ``refine_k`` in the request the candidates come back as they are.
    """
    if request.refine_k is None:
        return found
    segments = [
        segment
        for number in request.shards
        for segment in shard_set.shards[number].segments
        if not segment.exact
    ]
    request.check()
    module = native()
    if module is None:
        better = _rescored(segments, request, found, shard_set.metric)
    else:
        raw = module.rescore(
            [segment.handle for segment in segments],
            request.refine_queries,
            np.ascontiguousarray(found.rows),
            found.counts,
            request.k,
            native_metric(shard_set.metric),
            module.Pool(1),
        )
        better = to_candidates(raw, segments)
    return replace(better, codes_scanned=found.codes_scanned, survivors=found.survivors)


def _rescored(
    segments: list[SegmentRows], request: ScanRequest, found: Candidates, metric: Metric
) -> Candidates:
    """The reference, where the extension is missing: slow and right."""
    n, k = len(found.rows), request.k
    distances, rows = np.zeros((n, k), np.float32), np.zeros((n, k), np.int64)
    counts = np.minimum(found.counts, k).astype(np.int32)
    for q in range(n):
        ids = found.rows[q, : found.counts[q]]
        exact = exact_distances(request.refine_queries[q], vectors_of(segments, ids), metric)
        best = smallest(exact, ids, k)
        distances[q, : len(best)], rows[q, : len(best)] = exact[best], ids[best]
    return blank_tail(distances, rows, counts, 0)


def vectors_of(segments: list[SegmentRows], ids: I64) -> F32:
    """The stored vectors of rows that these segments hold: float32 [len(ids), dim]."""
    parts: list[NDArray[np.float32]] = []
    order: list[NDArray[np.intp]] = []
    for segment in segments:
        at = np.flatnonzero(
            (ids >= segment.row_start) & (ids < segment.row_start + segment.row_count)
        )
        mine = segment.row_ids()
        place = np.argsort(mine, kind="stable")
        spot = place[np.minimum(np.searchsorted(mine[place], ids[at]), max(0, len(mine) - 1))]
        held = mine[spot] == ids[at] if len(mine) else np.zeros(len(at), bool)
        assert segment.vectors is not None, "a refined segment holds vectors"
        segment.file.ensure_array("vectors")
        parts.append(segment.vectors[spot[held]].astype(np.float32))
        order.append(at[held])
    where = np.concatenate(order) if order else np.zeros(0, np.intp)
    assert len(where) == len(ids), "a found row lies in a segment that was scanned"
    out = np.empty((len(ids), parts[0].shape[1] if parts else 0), dtype=np.float32)
    if parts:
        out[where] = np.concatenate(parts)
    return out
