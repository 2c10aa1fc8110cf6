"""Exact search and rescoring in float32; bit-equal to ``fixedpoint.exact_distances``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragschema.types import F32, I32, I64, U8
from retrieval_node.fixedpoint import LANES, U16
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
def rescore_half(queries: F32, halves: U16, positions: I64, squared: bool, distances: F32) -> None:
    """Exact distances to stored float16 vectors.

    Args:
        halves: uint16 [rows, dim], the bits of the float16 vectors.
        positions: int64 [n, c], rows to rescore; negative ones are left alone.
        distances: out, float32 [n, c].
    """
    dim = halves.shape[1]
    lanes = np.empty(_LANES, dtype=np.float32)
    bits = np.empty(dim, dtype=np.uint32)
    vector = bits.view(np.float32)
    # Moves the exponent from float16's bias to float32's; exact, subnormals too.
    rebias = np.float32(2.0**112)
    for q in range(positions.shape[0]):
        for c in range(positions.shape[1]):
            at = positions[q, c]
            if at < 0:
                continue
            for t in range(dim):
                half = np.uint32(halves[at, t])
                bits[t] = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | (
                    (half & np.uint32(0x8000)) << np.uint32(16)
                )
            for t in range(dim):
                vector[t] = vector[t] * rebias
            distances[q, c] = _distance(queries[q], vector, squared, lanes)


def warm_up() -> None:
    """Compiles every function of this module by running it on one vector."""
    one = np.zeros((1, 1), dtype=np.float32)
    ids = np.zeros(1, dtype=np.int64)
    byte = np.zeros((1, 1), dtype=np.uint8)
    counts = np.zeros(1, dtype=np.int32)
    rows = np.zeros((1, 1), dtype=np.int64)
    flat_scan(one, one, ids, byte[0], byte, counts, True, one.copy(), rows, counts.copy())
    halves = np.zeros((1, 1), dtype=np.uint16)
    rescore_half(one, halves, rows, True, one.copy())


def compiled_signatures() -> dict[str, int]:
    """How many signatures each function has been compiled for."""
    found: tuple[Any, ...] = (flat_scan, rescore_half)
    return {function.__name__: len(function.signatures) for function in found}
