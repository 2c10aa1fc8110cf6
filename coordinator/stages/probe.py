"""Probe: the nearest inverted lists of each query, found exactly."""

from __future__ import annotations

import asyncio

import numpy as np

from ragschema.types import F32, I32, I64, Metric

#: Multiply-adds beyond which the search leaves the event loop's thread; about
#: a millisecond of one core.
_INLINE_WORK = 16_000_000


class CoarseIndex:
    """A collection's centroids, made ready for searching.

    Args:
        centroids: float32 [nlist, dim].
    """

    def __init__(self, centroids: F32, metric: Metric) -> None:
        self.nlist, self.dim = centroids.shape
        self._transposed = np.ascontiguousarray(centroids.T)
        # |q - c|^2 = |q|^2 - 2 (q.c - |c|^2 / 2): the order needs no more than this.
        self._half_norms = (
            (0.5 * np.einsum("ld,ld->l", centroids, centroids)).astype(np.float32)
            if metric is Metric.L2
            else None
        )

    def nearest(self, queries: F32, nprobe: int) -> I32:
        """Nearest lists first, ties by list id: int32 [n, min(nprobe, nlist)].

        Args:
            queries: float32 [n, dim].
        """
        far = -(queries @ self._transposed)
        if self._half_norms is not None:
            far += self._half_norms
        if nprobe >= self.nlist:
            return np.argsort(far, axis=1, kind="stable").astype(np.int32)
        chosen = np.argpartition(far, nprobe - 1, axis=1)[:, :nprobe]
        values = np.take_along_axis(far, chosen, axis=1)
        self._settle_ties(far, chosen, values)
        order = np.lexsort((chosen, values), axis=1)
        return np.take_along_axis(chosen, order, axis=1).astype(np.int32)

    @staticmethod
    def _settle_ties(far: F32, chosen: I64, values: F32) -> None:
        """Partitioning takes any of the lists that tie for the last places."""
        nprobe = chosen.shape[1]
        farthest = values.max(axis=1, keepdims=True)
        for row in np.nonzero((far <= farthest).sum(axis=1) > nprobe)[0]:
            chosen[row] = np.argsort(far[row], kind="stable")[:nprobe]
            values[row] = far[row, chosen[row]]


class ProbeStage:
    """Finds the lists of a whole batch at once."""

    async def __call__(self, index: CoarseIndex | None, queries: F32, nprobe: int) -> I32 | None:
        """int32 [n, nprobe]; None where the collection keeps exact vectors."""
        if index is None:
            return None
        if queries.shape[0] * index.nlist * index.dim <= _INLINE_WORK:
            return index.nearest(queries, nprobe)
        return await asyncio.to_thread(index.nearest, queries, nprobe)
