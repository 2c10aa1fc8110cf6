"""Probe: the nearest inverted lists of each query, found exactly.

Nearness is computed in float32 by one matrix product, whose sums BLAS orders by
the shape of the batch. Two lists whose distances differ by less than that
rounding may therefore change places between one batch and another, as they may
between one machine and another; everything after the product is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from ragschema.errors import CorruptData
from ragschema.types import F32, I32, I64, Metric

#: Multiply-adds beyond which the search leaves the event loop's thread; about
#: a millisecond of one core.
_INLINE_WORK = 32_000_000
#: Distances whose keys are selected together: 512 KiB of keys, half an L2 cache.
_SELECTED_AT_ONCE = 65_536
_SIGN_OFF = np.int32(0x7FFF_FFFF)
_LIST_BITS = 32
_LIST = np.int64((1 << _LIST_BITS) - 1)
#: Queries from which a bound is looked for first: it takes more steps, each a quick one.
_MANY = 8


class CoarseIndex:
    """A collection's centroids, made ready for searching.

    Args:
        centroids: float32 [nlist, dim].
        rotation: float32 [dim, input dim], applied to queries first; None: none.
        offset: float32 [dim], added after the rotation; None: none.

    Raises:
        CorruptData: the three do not fit together.
    """

    def __init__(
        self,
        centroids: F32,
        metric: Metric,
        rotation: F32 | None = None,
        offset: F32 | None = None,
    ) -> None:
        self.nlist, self.dim = centroids.shape
        self._rotation = None if rotation is None else rotation.T.astype(np.float64)
        self._offset = None if offset is None else offset.astype(np.float64)
        for part in (rotation, offset):
            if part is not None and part.shape[0] != self.dim:
                raise CorruptData(
                    f"the index rotates to {part.shape[0]} numbers, its lists have {self.dim}",
                    field="index",
                    hint="build the index again",
                )
        # |q - c|^2 = |q|^2 - 2 (q.c - |c|^2 / 2): the order needs no more than
        # the negative of what is in brackets.
        self._negated = np.ascontiguousarray(-centroids.T)
        self._half_norms = (
            (0.5 * np.einsum("ld,ld->l", centroids, centroids)).astype(np.float32)
            if metric is Metric.L2
            else np.zeros(self.nlist, np.float32)
        )
        self._lists = np.arange(self.nlist, dtype=np.int64)

    def nearest(self, queries: F32, nprobe: int) -> I32:
        """Nearest lists first, ties by list id: int32 [n, min(nprobe, nlist)].

        Args:
            queries: float32 [n, input dim], finite.
        """
        far = self._turned(queries) @ self._negated
        # For inner products too: it turns -0.0 into 0.0, which must tie.
        far += self._half_norms
        width = min(nprobe, self.nlist)
        found = np.empty((len(queries), width), dtype=np.int32)
        rows = max(1, _SELECTED_AT_ONCE // self.nlist)
        for start in range(0, len(queries), rows):
            found[start : start + rows] = self._selected(far[start : start + rows], width)
        return found

    def _turned(self, queries: F32) -> F32:
        if self._rotation is None and self._offset is None:
            return queries
        # In float64, so that this step at least does not depend on the batch.
        wide = queries.astype(np.float64)
        if self._rotation is not None:
            wide = wide @ self._rotation
        if self._offset is not None:
            wide += self._offset
        return wide.astype(np.float32)

    def _selected(self, far: F32, width: int) -> I64:
        """The lists with the ``width`` smallest of each row, ascending, ties by list."""
        keys = self._few_keys(far, width)
        if keys is not None:
            return _lists_of(keys, width)
        keys = _keys(far, self._lists)
        if width < self.nlist:
            keys.partition(width - 1, axis=1)
        return _lists_of(keys[:, :width], width)

    def _few_keys(self, far: F32, width: int) -> I64 | None:
        """Keys of at least the ``width`` nearest lists of each row; None where that saves nothing.

        Of twice as many columns' minima, the width-th smallest bounds them, so that few are left to
        sort. Selecting among all of them is several times slower on some processors.
        """
        columns = 1 << (2 * width - 1).bit_length()
        if len(far) < _MANY or 4 * columns > self.nlist:
            return None
        whole = self.nlist - self.nlist % columns
        minima = far[:, :whole].reshape(len(far), -1, columns).min(axis=1)
        minima.sort(axis=1)
        near = far <= minima[:, width - 1 : width]
        counts = np.count_nonzero(near, axis=1)
        # Fewer only where a number is none.
        if counts.min() < width:
            return None
        places = np.flatnonzero(near)
        # Rows aligned at their left, filled up with what is larger than any key.
        keys = np.full((len(far), int(counts.max())), np.iinfo(np.int64).max)
        keys[np.arange(keys.shape[1]) < counts[:, None]] = _keys(
            far.reshape(-1)[places], places % self.nlist
        )
        return keys


def _lists_of(keys: I64, width: int) -> I64:
    """The lists of the ``width`` smallest keys of each row, ascending."""
    keys.sort(axis=1)
    lists: I64 = keys[:, :width] & _LIST
    return lists


def _keys(far: F32, lists: I64) -> I64:
    """int64, in the order of (distance, list id), of as many; overwrites ``far``.

    A float's bits sort like an integer once those of negative numbers are flipped, and integers
    are sorted several times faster than pairs.
    """
    bits = far.view(np.int32)
    flip = bits >> 31
    flip &= _SIGN_OFF
    bits ^= flip
    keys = bits.astype(np.int64)
    keys <<= _LIST_BITS
    keys |= lists
    return keys


class ProbeStage:
    """Finds the lists of a whole batch at once."""

    async def __call__(
        self, index: CoarseIndex | None, queries: F32, widths: Sequence[int]
    ) -> I32 | None:
        """int32 [n, max(widths)], row i padded with -1 after ``widths[i]`` lists.

        None where the collection keeps exact vectors.
        """
        if index is None:
            return None
        widest = max(widths)
        if queries.shape[0] * index.nlist * index.dim <= _INLINE_WORK:
            lists = index.nearest(queries, widest)
        else:
            lists = await asyncio.to_thread(index.nearest, queries, widest)
        return padded(lists, widths)


def padded(lists: I32, widths: Sequence[int]) -> I32:
    """The same array with -1 after the first ``widths[i]`` lists of row i."""
    if min(widths) < max(widths):
        lists[np.arange(lists.shape[1]) >= np.asarray(widths)[:, np.newaxis]] = -1
    return lists
