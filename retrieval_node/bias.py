"""The part of a squared distance that depends on the row alone, in two bytes.

With r the decoded code of a row of list l (its centroid not added), and c_l its
centroid (zero where codes are not of residuals)::

    |q - x|^2 = |q - c_l|^2 + t - 2 <q - shift, r>
    t = |r|^2 + 2 <c_l - shift, r>

so that one table per query serves all lists. ``t`` is stored as base + step * u
with a base and a step per list, and never above the true value: a scan may use
it as a lower bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I64, U8
from retrieval_node.layout import LANES
from retrieval_node.shard_files import IvfIndex

F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]

_LARGEST = 65_535
#: Room for what float32 rounds off in base + step * u, several times over.
_MARGIN = 2.0**-20


class BiasEncoder:
    """Bias terms of an index's rows, list by list."""

    def __init__(self, index: IvfIndex) -> None:
        self._codebooks: F64 = index.codebooks.astype(np.float64)
        self._norms: F64 = np.einsum("jcd,jcd->jc", self._codebooks, self._codebooks)
        self._pull: F64 | None = None
        m, _, sub = index.codebooks.shape
        if index.residual:
            centred = index.centroids.astype(np.float64) - index.shift.astype(np.float64)
            self._pull = 2 * centred.reshape(-1, m, sub)
        elif index.shift.any():
            self._pull = np.broadcast_to(
                -2 * index.shift.astype(np.float64).reshape(m, sub),
                (index.nlist, m, sub),
            )

    def terms(self, number: int, codes: U8) -> F64:
        """The true t of rows of one list: float64 [n], from codes uint8 [n, m]."""
        table = self._norms
        if self._pull is not None:
            table = table + np.matmul(self._codebooks, self._pull[number][:, :, None])[:, :, 0]
        total = np.zeros(len(codes))
        for j in range(codes.shape[1]):
            total += table[j][codes[:, j]]
        return total

    def order(self, number: int, codes: U8) -> I64:
        """One list's rows by their terms: int64 [n], from codes uint8 [n, m].

        A scan knows of a block of rows the smallest term, and leaves blocks early whose
        rows have all large ones. Rows of equal terms keep their order.
        """
        return np.argsort(self.terms(number, codes), kind="stable")

    def encode(self, number: int, codes: U8) -> tuple[U16, F32]:
        """One list's stored terms.

        Args:
            codes: uint8 [n, m], n > 0.

        Returns:
            uint16 [64 * ceil(n / 64)], the largest value in the padding, and
            float32 [2], base and step.
        """
        terms = self.terms(number, codes)
        low, high = float(terms.min()), float(terms.max())
        margin = _MARGIN * max(abs(low), abs(high))
        base = np.nextafter(np.float32(low - margin), np.float32(-np.inf))
        # From the stored base and step, so that their rounding is in the result.
        step = np.nextafter(np.float32((high - float(base)) / _LARGEST), np.float32(np.inf))
        stored = np.full(-(-len(codes) // LANES) * LANES, _LARGEST, dtype=np.uint16)
        above = np.floor((terms - margin - float(base)) / float(step))
        stored[: len(codes)] = np.clip(above, 0, _LARGEST).astype(np.uint16)
        return stored, np.array([base, step], dtype=np.float32)
