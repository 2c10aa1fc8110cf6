"""Random indexes with true bias terms, and mode ``fast`` written in numpy.

The distances are those that native/kernels.hpp defines: float32, 16 lanes by
component modulo 16, added in order; the coarse term of inner products in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragschema.types import F32, I32, I64, U8, Metric
from retrieval_node.bias import BiasEncoder
from retrieval_node.fixedpoint import exact_distances, smallest
from retrieval_node.layout import group_codes
from retrieval_node.native.loader import require_native
from retrieval_node.shard_files import IvfIndex

LANES = 16


@dataclass(frozen=True)
class Shape:
    """What to make; ``rows`` of each segment, dealt to lists at random.

    ``loose``: stored bias terms are all the smallest, true lower bounds that say nothing.
    ``placed``: rows of a list lie by their bias terms, as they do in files.
    """

    metric: Metric = Metric.L2
    residual: bool = True
    m: int = 8
    sub: int = 4
    nlist: int = 7
    rows: tuple[int, ...] = (900,)
    distinct: int = 0
    scale: float = 1.0
    vectors: type[np.floating[Any]] | None = None
    loose: bool = False
    placed: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """One segment: ids and codes by list."""

    offsets: I64
    codes: U8
    ids: np.ndarray[Any, np.dtype[np.uint32]]
    row_start: int
    row_count: int
    vectors: np.ndarray[Any, Any] | None


@dataclass(frozen=True, eq=False)
class Made:
    shape: Shape
    index: IvfIndex
    parts: tuple[Part, ...]
    rng: np.random.Generator = field(repr=False)

    @property
    def row_ids(self) -> int:
        return sum(p.row_count for p in self.parts)

    def queries(self, n: int) -> F32:
        drawn = self.rng.normal(size=(n, self.shape.m * self.shape.sub)) * self.shape.scale
        return np.asarray(drawn, dtype=np.float32)

    def lists(self, n: int, nprobe: int, padded: float = 0.0) -> I32:
        nlist = self.shape.nlist
        rows = [self.rng.permutation(nlist)[:nprobe] for _ in range(n)]
        lists = np.array(rows, dtype=np.int32).reshape(n, -1)
        lists[self.rng.random(lists.shape) < padded] = -1
        return lists

    def bitmap(self, density: float) -> U8:
        bits = self.rng.random(self.row_ids) < density
        return np.packbits(bits, bitorder="little")

    def handles(self, isa: str) -> tuple[Any, list[Any]]:
        scan, index = require_native(), self.index
        name = "l2" if index.metric is Metric.L2 else "ip"
        handle = scan.Index(
            name, index.centroids, index.codebooks, index.shift, index.residual, isa
        )
        return handle, [self._segment(handle, part) for part in self.parts]

    def _segment(self, handle: Any, part: Part) -> Any:
        bias, affine = self._bias(part)
        return require_native().Segment(
            handle, part.offsets, group_codes(part.codes, part.offsets), bias, affine,
            part.ids, part.row_start, part.row_count, part.vectors, None,
        )  # fmt: skip

    def _bias(self, part: Part) -> tuple[Any, Any]:
        if self.index.metric is not Metric.L2:
            return None, None
        encoder = BiasEncoder(self.index)
        affine = np.zeros((self.shape.nlist, 2), dtype=np.float32)
        stored = [np.zeros(0, dtype=np.uint16)]
        for number in range(self.shape.nlist):
            codes = part.codes[part.offsets[number] : part.offsets[number + 1]]
            if len(codes):
                one, affine[number] = encoder.encode(number, codes)
                if self.shape.loose:
                    one[:] = 0
                stored.append(one)
        return np.concatenate(stored), affine


def make(shape: Shape, seed: int) -> Made:
    rng = np.random.default_rng(seed)
    dim = shape.m * shape.sub
    centroids = (rng.normal(size=(shape.nlist, dim)) * shape.scale).astype(np.float32)
    books = rng.normal(size=(shape.m, 256, shape.sub)) * 0.5 * shape.scale
    shift = centroids.mean(axis=0) if shape.residual else np.zeros(dim)
    index = IvfIndex(
        metric=shape.metric, centroids=centroids, codebooks=books.astype(np.float32),
        shift=shift.astype(np.float32), residual=shape.residual, rotation=None, offset=None,
        handle=None,
    )  # fmt: skip
    parts, start = [], 0
    for n in shape.rows:
        count = n + int(rng.integers(0, 9))
        parts.append(_part(shape, index, rng, n, start, count))
        start += count
    return Made(shape, index, tuple(parts), rng)


def _part(
    shape: Shape, index: IvfIndex, rng: np.random.Generator, n: int, start: int, count: int
) -> Part:
    of_list = np.sort(rng.integers(0, shape.nlist, n))
    offsets = np.searchsorted(of_list, np.arange(shape.nlist + 1)).astype(np.int64)
    codes = rng.integers(0, 256, (n, shape.m), dtype=np.uint8)
    if shape.distinct and n:
        codes = codes[rng.integers(0, min(n, shape.distinct), n)]
    if shape.placed:
        encoder = BiasEncoder(index)
        for number in range(shape.nlist):
            mine = slice(offsets[number], offsets[number + 1])
            codes[mine] = codes[mine][encoder.order(number, codes[mine])]
    ids = rng.permutation(count)[:n].astype(np.uint32)
    vectors = None
    if shape.vectors is not None:
        drawn = rng.normal(size=(n, shape.m * shape.sub)) * shape.scale
        vectors = drawn.astype(shape.vectors)
    return Part(offsets, np.ascontiguousarray(codes), ids, start, count, vectors)


def in_lanes(terms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sums of [n, dim] terms as 16 lanes, added in order, in the terms' own precision."""
    lanes = np.zeros((len(terms), LANES), dtype=terms.dtype)
    for t in range(terms.shape[1]):
        lanes[:, t % LANES] += terms[:, t]
    total = np.zeros(len(terms), dtype=terms.dtype)
    for u in range(LANES):
        total += lanes[:, u]
    return total


def adc(index: IvfIndex, query: F32, number: int, codes: U8) -> F32:
    """Exact ADC distances of one list's codes: float32 [n]."""
    m, _, sub = index.codebooks.shape
    entries = index.codebooks[np.arange(m)[None], codes].reshape(len(codes), m * sub)
    centroid = index.centroids[number]
    if index.metric is Metric.L2:
        return exact_distances(query - centroid if index.residual else query, entries, Metric.L2)
    sums = exact_distances(query, entries, Metric.IP)
    if not index.residual:
        return sums
    products = -(query.astype(np.float64) * centroid.astype(np.float64))
    coarse = in_lanes(products[None, :])[0]
    return np.asarray(coarse + sums.astype(np.float64), dtype=np.float32)


def reference(
    made: Made, query: F32, lists: I32, k: int, bitmaps: list[U8], refine_k: int = 0
) -> tuple[F32, I64]:
    """The k nearest allowed rows of one query by (distance, row id)."""
    distances, rows = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    vectors = []
    for number in lists[lists >= 0].tolist():
        for part in made.parts:
            own = slice(part.offsets[number], part.offsets[number + 1])
            distances.append(adc(made.index, query, number, part.codes[own]))
            rows.append(part.ids[own].astype(np.int64) + part.row_start)
            if part.vectors is not None:
                vectors.append(part.vectors[own].astype(np.float32))
    found, ids = np.concatenate(distances), np.concatenate(rows)
    keep = np.ones(len(ids), dtype=bool)
    for bitmap in bitmaps:
        keep &= ((bitmap[ids >> 3] >> (ids & 7)) & 1).astype(bool)
    found, ids = found[keep], ids[keep]
    best = smallest(found, ids, refine_k or k)
    if not refine_k:
        return found[best], ids[best]
    stored = np.concatenate([np.zeros((0, len(query)), np.float32), *vectors])[keep][best]
    exact, ids = exact_distances(query, stored, made.index.metric), ids[best]
    best = smallest(exact, ids, k)
    return exact[best], ids[best]
