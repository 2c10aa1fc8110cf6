"""Made-up PQ codes for scan benchmarks: any number of them, in the grouped layout.

Codes are uniform, which any layout of them is too, so they are drawn where they
lie. Centroids lie close together beside the spread of the residuals: every list
then holds near rows, and no scan may leave one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ragschema.types import F32, I64, U8, Metric
from retrieval_node.layout import GROUP_BLOCKS, LANES

_ALIGN = 64
_CENTROID_SPREAD = 0.02
_GROUP_ROWS = LANES * GROUP_BLOCKS


@dataclass(frozen=True, eq=False)
class CodeSet:
    """Codes of nlist lists of equal length, a multiple of 512.

    Attributes:
        centroids: float32 [nlist, dim]; codebooks: float32 [m, 256, dim / m].
        codes: uint8, grouped, flat, 64-byte aligned.
        bias, bias_affine: the codes' bias terms, uint16 [n] and float32 [nlist, 2].
    """

    centroids: F32
    codebooks: F32
    codes: U8
    bias: np.ndarray[Any, np.dtype[np.uint16]]
    bias_affine: F32
    list_rows: int

    @property
    def rows(self) -> int:
        return len(self.bias)

    @property
    def offsets(self) -> I64:
        return np.arange(len(self.centroids) + 1, dtype=np.int64) * self.list_rows

    @property
    def shift(self) -> F32:
        return np.asarray(self.centroids.mean(axis=0), dtype=np.float32)

    def row_codes(self, which: int) -> U8:
        """One list's codes by row: uint8 [list_rows, m]."""
        m = len(self.codebooks)
        size = self.list_rows * m
        grouped = self.codes[which * size : (which + 1) * size].reshape(-1, m, _GROUP_ROWS)
        return np.ascontiguousarray(grouped.transpose(0, 2, 1).reshape(-1, m))

    def handles(self, scan: Any, metric: Metric) -> tuple[Any, Any]:
        """The compiled index and segment; inner products have no bias terms."""
        squared = metric is Metric.L2
        index = scan.Index(
            "l2" if squared else "ip", self.centroids, self.codebooks, self.shift, True
        )
        ids = np.arange(self.rows, dtype=np.uint32)
        bias = (self.bias, self.bias_affine) if squared else (None, None)
        return index, scan.Segment(
            index, self.offsets, self.codes, *bias, ids, 0, self.rows, None, None
        )


def make_codes(rows: int, nlist: int, dim: int, m: int, seed: int) -> CodeSet:
    """``rows`` codes of m bytes in nlist lists; rows is a multiple of 512 nlist."""
    rng = np.random.default_rng(seed)
    centroids = (rng.normal(size=(nlist, dim)) * _CENTROID_SPREAD).astype(np.float32)
    codebooks = rng.normal(size=(m, 256, dim // m)).astype(np.float32)
    codes = _aligned(rows * m)
    codes.view(np.uint64)[:] = rng.integers(0, 2**64, rows * m // 8, dtype=np.uint64)
    bias, affine = np.empty(rows, dtype=np.uint16), np.empty((nlist, 2), dtype=np.float32)
    made = CodeSet(centroids, codebooks, codes, bias, affine, rows // nlist)
    for which in range(nlist):
        _fill_bias(made, which)
    return made


def _aligned(size: int) -> U8:
    memory = np.empty(size + _ALIGN, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGN
    return memory[start : start + size]


def _fill_bias(made: CodeSet, which: int) -> None:
    """t = |r|^2 + 2 <c - shift, r> of one list's codes, floored to base + step * u16."""
    m, _, sub = made.codebooks.shape
    offset = (made.centroids[which] - made.shift).astype(np.float64).reshape(m, 1, sub)
    books = made.codebooks.astype(np.float64)
    table = (books * books).sum(axis=2) + 2.0 * (offset * books).sum(axis=2)
    size = made.list_rows * m
    grouped = made.codes[which * size : (which + 1) * size].reshape(-1, m, _GROUP_ROWS)
    terms = np.zeros((len(grouped), _GROUP_ROWS))
    for j in range(m):
        terms += table[j][grouped[:, j, :]]
    base = np.nextafter(np.float32(terms.min()), np.float32(-np.inf))
    # A step a little too long keeps the last value below 65536.
    step = np.float32((terms.max() - float(base)) / 65535.0 * (1.0 + 1e-6))
    levels = np.floor((terms.reshape(-1) - float(base)) / float(step))
    first = which * made.list_rows
    made.bias[first : first + made.list_rows] = np.minimum(levels, 65535.0).astype(np.uint16)
    made.bias_affine[which] = (base, step)
