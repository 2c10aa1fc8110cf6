"""Exact search and rescoring in float32; bit-equal to ``fixedpoint.exact_distances``."""

from __future__ import annotations

import numpy as np

from ragschema.types import F32, I32, I64, U8
from retrieval_node.fixedpoint import LANES
from retrieval_node.heap import offer, sort_heap
from retrieval_node.jit import compiled

_LANES = LANES


@compiled
def _distance(query: F32, vector: F32, squared: bool, lanes: F32) -> np.float32:
    """Squared L2, or minus the inner product, in 16 lanes."""
    dim = query.shape[0]
    whole = dim - dim % _LANES
    for u in range(_LANES):
        lanes[u] = np.float32(0.0)
    for start in range(0, whole, _LANES):
        if squared:
            for u in range(_LANES):
                diff = query[start + u] - vector[start + u]
                lanes[u] = lanes[u] + diff * diff
        else:
            for u in range(_LANES):
                lanes[u] = lanes[u] - query[start + u] * vector[start + u]
    for u in range(dim - whole):
        if squared:
            diff = query[whole + u] - vector[whole + u]
            lanes[u] = lanes[u] + diff * diff
        else:
            lanes[u] = lanes[u] - query[whole + u] * vector[whole + u]
    total = np.float32(0.0)
    for u in range(_LANES):
        total = total + lanes[u]
    return total


@compiled
def flat_scan(
    queries: F32, vectors: F32, ids: I64, alive: U8, bitmaps: U8, filter_of: I32,
    squared: bool, distances: F32, rows: I64, counts: I32,
) -> None:  # fmt: skip
    """The k nearest of all valid rows per query, by (distance, row id).

    Args:
        alive: uint8 [rows] or empty (all valid).
        bitmaps: uint8 [filters, bytes] over row ids; filter_of: int32 [n], -1 none.
        distances, rows: out [n, k]; counts: out int32 [n].
    """
    k = distances.shape[1]
    lanes = np.empty(_LANES, dtype=np.float32)
    has_dead = alive.shape[0] > 0
    for q in range(queries.shape[0]):
        size = 0
        chosen = filter_of[q]
        for i in range(vectors.shape[0]):
            if has_dead and alive[i] == 0:
                continue
            row = ids[i]
            if chosen >= 0 and (bitmaps[chosen, row >> 3] >> np.uint8(row & 7)) & 1 == 0:
                continue
            value = _distance(queries[q], vectors[i], squared, lanes)
            if size < k or value <= distances[q, 0]:
                size = offer(distances[q], rows[q], size, value, row)
        sort_heap(distances[q], rows[q], size)
        counts[q] = size


@compiled
def rescore(query: F32, vectors: F32, squared: bool, out: F32) -> None:
    """Exact distances of one query to vectors [n, dim]."""
    lanes = np.empty(_LANES, dtype=np.float32)
    for i in range(vectors.shape[0]):
        out[i] = _distance(query, vectors[i], squared, lanes)


def warm_up() -> None:
    """Compiles every function of this module by running it on one vector."""
    one = np.zeros((1, 1), dtype=np.float32)
    ids = np.zeros(1, dtype=np.int64)
    byte = np.zeros((1, 1), dtype=np.uint8)
    counts = np.zeros(1, dtype=np.int32)
    rows = np.zeros((1, 1), dtype=np.int64)
    flat_scan(one, one, ids, byte[0], byte, counts, True, one.copy(), rows, counts.copy())
    rescore(one[0], one, True, np.zeros(1, dtype=np.float32))
