"""A small index with codes, and its search written with ``fixedpoint`` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ragschema.types import F32, I32, I64, U8, Metric
from retrieval_node.fixedpoint import (
    Contract,
    exact_distances,
    saturating_sums,
    smallest,
    to_distance,
)
from retrieval_node.fixedpoint_card import contract_tables
from retrieval_node.layout import group_codes
from retrieval_node.native.loader import require_native


@dataclass(frozen=True, eq=False)
class Rows:
    """One segment: ids and codes by list, ids relative to ``row_start``."""

    ids: np.ndarray[Any, np.dtype[np.uint32]]
    offsets: I64
    codes: U8
    row_start: int
    row_count: int
    vectors: np.ndarray[Any, Any] | None = None

    def handle(self, index: Any, metric: Metric) -> Any:
        """The compiled segment; its bias terms are not the contract's business."""
        lanes = int((-(-np.diff(self.offsets) // 64) * 64).sum())
        squared = metric is Metric.L2
        return require_native().Segment(
            index,
            self.offsets,
            group_codes(self.codes, self.offsets),
            np.zeros(lanes, np.uint16) if squared else None,
            np.zeros((len(self.offsets) - 1, 2), np.float32) if squared else None,
            self.ids,
            self.row_start,
            self.row_count,
            self.vectors,
            None,
        )


@dataclass(frozen=True, eq=False)
class Made:
    """An index and its segments."""

    metric: Metric
    residual: bool
    centroids: F32
    codebooks: F32
    segments: tuple[Rows, ...]

    def index(self, isa: str) -> Any:
        return require_native().Index(
            "l2" if self.metric is Metric.L2 else "ip",
            self.centroids,
            self.codebooks,
            np.zeros(self.centroids.shape[1], np.float32),
            self.residual,
            isa,
        )


@dataclass(frozen=True)
class Shape:
    """What to make; ``sizes`` are rows per list, of every segment."""

    metric: Metric = Metric.L2
    residual: bool = True
    m: int = 4
    sub: int = 2
    sizes: tuple[tuple[int, ...], ...] = ((3, 0, 70, 1),)
    distinct: int = 256
    exponent: int = 0
    half: bool | None = None


def make(shape: Shape, seed: int) -> Made:
    """Random numbers of a size; ``distinct`` codes only, for ties."""
    rng = np.random.default_rng(seed)
    size, dim = 10.0**shape.exponent, shape.m * shape.sub
    nlist = len(shape.sizes[0])
    start, segments = 0, []
    for sizes in shape.sizes:
        n = sum(sizes)
        count = n + int(rng.integers(0, 20))
        ids = rng.permutation(count)[:n].astype(np.uint32)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        for number in range(nlist):
            ids[offsets[number] : offsets[number + 1]].sort()
        codes = rng.integers(0, shape.distinct, (n, shape.m)).astype(np.uint8)
        vectors = None
        if shape.half is not None:
            dtype = np.float16 if shape.half else np.float32
            vectors = rng.normal(size=(n, dim)).astype(dtype)
        segments.append(Rows(ids, offsets, codes, start, count, vectors))
        start += count
    return Made(
        shape.metric,
        shape.residual,
        (size * rng.normal(size=(nlist, dim))).astype(np.float32),
        (size * rng.normal(size=(shape.m, 256, shape.sub))).astype(np.float32),
        tuple(segments),
    )


def reference(
    made: Made, query: F32, lists: I32, k: int, contract: Contract, valid: U8 | None
) -> tuple[F32, I64]:
    """Distances and rows of one query; ``valid`` holds a byte per row."""
    own = lists[lists >= 0]
    found = contract_tables(
        query, made.centroids[own], made.codebooks, made.metric, contract, made.residual
    )
    sums, ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows in made.segments:
        for p, number in enumerate(own.tolist()):
            part = slice(rows.offsets[number], rows.offsets[number + 1])
            row_ids = rows.ids[part].astype(np.int64) + rows.row_start
            keep = np.ones(len(row_ids), bool) if valid is None else valid[row_ids].astype(bool)
            table = found.tables[p if len(found.tables) > 1 else 0]
            sums.append(
                saturating_sums(table, int(found.biases[p]), rows.codes[part][keep], contract)
            )
            ids.append(row_ids[keep])
    all_sums, all_ids = np.concatenate(sums), np.concatenate(ids)
    best = smallest(all_sums, all_ids, k)
    return to_distance(all_sums[best], found.base, found.scale), all_ids[best]


def refined(made: Made, query: F32, candidates: I64, k: int) -> tuple[F32, I64]:
    """Candidates by exact distance to the stored vectors."""
    stored = np.empty((len(candidates), query.shape[0]), np.float32)
    for at, row in enumerate(candidates.tolist()):
        for rows in made.segments:
            assert rows.vectors is not None
            if rows.row_start <= row < rows.row_start + rows.row_count:
                stored[at] = rows.vectors[rows.ids.tolist().index(row - rows.row_start)]
    distances = exact_distances(query, stored, made.metric)
    best = smallest(distances, candidates, k)
    return distances[best], candidates[best]
