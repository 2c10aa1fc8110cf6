"""Merge: one exact ranking out of the nodes' answers, then texts for its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.collections.snapshot import Snapshot
from coordinator.types import Hit
from ragschema.types import F32, I32, I64, Metric, SearchResult

_NO_ROW = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows of a batch of queries, nearest first, ties by row id.

    Attributes:
        distances: float32 [n, k]; entries past counts mean nothing.
        row_ids: int64 [n, k].
        counts: int32 [n].
    """

    distances: F32
    row_ids: I64
    counts: I32


class MergeStage:
    """Exact: what one node with all shards would have answered."""

    def __call__(self, results: Sequence[SearchResult], n: int, k: int) -> Ranking:
        """Merges the answers for ``n`` queries and cuts them to ``k`` rows."""
        if not results:
            return Ranking(
                np.zeros((n, 0), np.float32), np.zeros((n, 0), np.int64), np.zeros(n, np.int32)
            )
        if len(results) == 1:
            return Ranking(results[0].distances, results[0].row_ids, results[0].counts)
        distances = np.concatenate([r.distances for r in results], axis=1)
        row_ids = np.concatenate([r.row_ids for r in results], axis=1)
        unused = np.concatenate(
            [np.arange(r.distances.shape[1]) >= r.counts[:, np.newaxis] for r in results], axis=1
        )
        distances[unused] = np.inf
        row_ids[unused] = _NO_ROW
        order = np.lexsort((row_ids, distances), axis=1)[:, :k]
        counts = np.minimum(sum(r.counts for r in results), k).astype(np.int32)
        return Ranking(
            np.take_along_axis(distances, order, axis=1),
            np.take_along_axis(row_ids, order, axis=1),
            counts,
        )


def to_hits(
    snapshot: Snapshot, distances: Sequence[float], row_ids: Sequence[int], metric: Metric
) -> tuple[Hit, ...]:
    """Texts and scores; rows that are deleted are left out.

    The look-up stays on the event loop: it costs tens of microseconds, less
    than handing it to a thread.
    """
    chunks = snapshot.chunks(row_ids)
    return tuple(
        Hit(chunk, metric.score(distance))
        for chunk, distance in zip(chunks, distances, strict=True)
        if chunk is not None
    )
