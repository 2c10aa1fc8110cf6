"""Top lists of a batch of queries, exact: what faiss's exact quantiser finds.

A first look by one float32 matrix product leaves candidates: everything that
rounding could have moved across the border. Their distances are computed again,
one by one and in float64, and ordered by (distance, list id). So the result does
not depend on the batch, the device or the order in which a product is summed.
faiss's order of equal inner products depends on its heap; that of equal squared
distances is ours.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from ragschema.errors import InvalidInput
from ragschema.storage.index_arrays import IndexArrays
from ragschema.types import F32, I32, Metric

#: Candidates beyond nprobe at first; more only where many lists are equally near.
_SLACK: Final = 16
#: Numbers in one temporary array: 64 MiB of float64.
_AT_ONCE: Final = 8 << 20
#: Relative rounding of one float32 operation.
_UNIT: Final = 2.0**-24
#: What a float32 product may lose where it is denormal.
_TINY: Final = 2.0**-148


class CentroidScan:
    """A collection's centroids on a device; one thread at a time.

    Args:
        metric: L2, or the inner product for everything else.
    """

    def __init__(self, arrays: IndexArrays, metric: Metric, device: torch.device) -> None:
        wide = torch.from_numpy(np.array(arrays.centroids)).to(device)
        self._centroids = wide
        self._l2 = metric is Metric.L2
        norms = wide.double().square().sum(dim=1)
        self._half_norms = (norms / 2 if self._l2 else torch.zeros_like(norms)).float()
        self._longest = float(norms.max().sqrt())
        self._rotation = _wide(arrays.rotation, device)
        self._offset = _wide(arrays.offset, device)
        self.nlist, self._inner = wide.shape
        self.dim = self._inner if arrays.rotation is None else int(arrays.rotation.shape[1])

    def nearest(self, queries: F32, nprobe: int) -> I32:
        """Nearest lists first, ties by list id: int32 [n, min(nprobe, nlist)].

        Args:
            queries: float32 [n, dim], finite.

        Raises:
            InvalidInput: the queries are of another dimension.
        """
        if queries.shape[1] != self.dim:
            raise InvalidInput(
                f"the queries have {queries.shape[1]} numbers, the collection {self.dim}",
                field="queries",
            )
        width = min(nprobe, self.nlist)
        found = np.empty((len(queries), width), dtype=np.int32)
        rows = max(1, _AT_ONCE // max(self.nlist, (width + _SLACK) * self._inner))
        with torch.inference_mode():
            for start in range(0, len(queries), rows):
                part = torch.from_numpy(np.array(queries[start : start + rows]))
                turned = self._turned(part.to(self._centroids.device))
                lists = self._ordered(turned, self._candidates(turned, width))
                found[start : start + rows] = lists[:, :width].int().cpu().numpy()
        return found

    def _turned(self, queries: torch.Tensor) -> torch.Tensor:
        """float32 [n, inner], where the centroids are."""
        if self._rotation is None and self._offset is None:
            return queries
        wide = queries.double()
        if self._rotation is not None:
            wide = wide @ self._rotation.T
        if self._offset is not None:
            wide = wide + self._offset
        return wide.float()

    def _candidates(self, queries: torch.Tensor, width: int) -> torch.Tensor:
        """int64 [n, m], lists among which the nearest ``width`` of every query are."""
        # |q - c|^2 / 2 without |q|^2 / 2, which is the same for every list.
        near = torch.addmm(self._half_norms, queries, self._centroids.T, alpha=-1)
        # Twice what a sum of so many products may be off.
        margin = 4 * (self._inner + 2) * _UNIT * self._longest * self._reach(queries)
        margin += 2 * self._inner * _TINY
        count = min(self.nlist, width + _SLACK)
        while True:
            best = near.topk(count, dim=1, largest=False, sorted=True)
            border = best.values[:, width - 1].double() + margin
            if count == self.nlist or bool((best.values[:, -1].double() > border).all()):
                return best.indices
            count = min(self.nlist, 4 * count)

    def _reach(self, queries: torch.Tensor) -> torch.Tensor:
        lengths = queries.double().square().sum(dim=1).sqrt()
        return lengths + self._longest if self._l2 else lengths

    def _ordered(self, queries: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
        """The same lists by (distance, list id)."""
        lists = lists.sort(dim=1).values
        rows = max(1, _AT_ONCE // (lists.shape[1] * self._inner))
        parts = [
            self._distances(queries[at : at + rows], lists[at : at + rows])
            for at in range(0, len(queries), rows)
        ]
        order = torch.cat(parts).sort(dim=1, stable=True).indices
        return lists.gather(1, order)

    def _distances(self, queries: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
        """float64 [n, m]: squared distance, or minus the inner product."""
        centroids = self._centroids[lists].double()
        wide = queries.double()[:, None]
        if self._l2:
            return (centroids - wide).square_().sum(dim=2)
        # Plus zero: -0.0 and 0.0 are one distance.
        return -(centroids * wide).sum(dim=2) + 0.0


def _wide(array: F32 | None, device: torch.device) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array.astype(np.float64)).to(device)
