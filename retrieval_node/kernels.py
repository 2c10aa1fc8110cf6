"""The integer scan compiled for the CPU; bit-equal to ``fixedpoint``.

All arrays are C-contiguous and writable; every function has one signature,
which ``warm_up`` compiles before the first request.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I32, I64, U8
from retrieval_node.fixedpoint import F64, U16
from retrieval_node.heap import offer, sort_heap
from retrieval_node.jit import compiled

#: Float tables of one query kept between the two passes; more are recomputed.
KEPT_TABLES = 64
_CODES = 256
_BLOCK = 32


@compiled
def _fill_l2(query: F32, centroid: F32, codebooks: F32, out: F32) -> None:
    """One mode A table; codebooks are [m, sub, 256], out is [m * 256]."""
    m, sub, codes = codebooks.shape
    for j in range(m):
        row = out[j * codes : (j + 1) * codes]
        row[:] = np.float32(0.0)
        for t in range(sub):
            value = query[j * sub + t] - centroid[j * sub + t]
            book = codebooks[j, t]
            for c in range(codes):
                diff = value - book[c]
                row[c] = row[c] + diff * diff


@compiled
def _fill_ip(query: F32, codebooks: F32, out: F32) -> None:
    """One mode B table."""
    m, sub, codes = codebooks.shape
    for j in range(m):
        row = out[j * codes : (j + 1) * codes]
        row[:] = np.float32(0.0)
        for t in range(sub):
            value = query[j * sub + t]
            book = codebooks[j, t]
            for c in range(codes):
                row[c] = row[c] - value * book[c]


@compiled
def _extremes(row: F32, lows: F32, highs: F32) -> tuple[np.float32, np.float32]:
    """Smallest and largest of 256 values; side by side so that it vectorises."""
    for u in range(_BLOCK):
        lows[u] = row[u]
        highs[u] = row[u]
    for start in range(_BLOCK, _CODES, _BLOCK):
        for u in range(_BLOCK):
            value = row[start + u]
            lows[u] = value if value < lows[u] else lows[u]
            highs[u] = value if value > highs[u] else highs[u]
    low, high = lows[0], highs[0]
    for u in range(1, _BLOCK):
        low = min(low, lows[u])
        high = max(high, highs[u])
    return low, high


@compiled
def _lift(table: F32, minima: F32, work: F32) -> tuple[float, float, float]:
    """Column minima, and (their sum, sum of the lifted maxima, largest lifted entry)."""
    floor = 0.0
    spread = 0.0
    largest = 0.0
    for j in range(minima.shape[0]):
        low, high = _extremes(
            table[j * _CODES : (j + 1) * _CODES], work[:_BLOCK], work[_BLOCK : 2 * _BLOCK]
        )
        minima[j] = low
        top = np.float64(np.float32(high - low))
        floor += np.float64(low)
        spread += top
        largest = max(largest, top)
    return floor, spread, largest


@compiled
def _quantize(table: F32, minima: F32, scale: np.float32, table_max: int, out: U16) -> None:
    half = np.float32(0.5)
    for j in range(minima.shape[0]):
        low = minima[j]
        for c in range(_CODES):
            lifted = table[j * _CODES + c] - low
            value = np.int32(lifted * scale + half)
            out[j * _CODES + c] = np.uint16(min(value, np.int32(table_max)))


@compiled
def _scale(largest: float, span: float, reach: float, limits: F64) -> np.float32:
    """``fixedpoint.choose_scale``; limits are (table_max, span limit, 2^22, 2^120)."""
    best = np.inf
    if largest > 0.0:
        best = min(best, limits[0] / largest)
    if span > 0.0:
        best = min(best, limits[1] / span)
    if reach > 0.0:
        best = min(best, limits[2] / reach)
    if best == np.inf:
        return np.float32(1.0)
    return np.float32(min(best, limits[3]))


@compiled
def _finish(
    coarse: F64, spreads: F64, largest: float, limits: F64, sum_max: int, biases: I64
) -> tuple[float, np.float32]:
    """Base and scale of one query; turns float biases into integers."""
    base = coarse.min()
    span = 0.0
    for p in range(coarse.shape[0]):
        span = max(span, coarse[p] - base + spreads[p])
    reach = max(abs(base), abs(base + span))
    scale = _scale(largest, span, reach, limits)
    for p in range(coarse.shape[0]):
        scaled = np.floor((coarse[p] - base) * np.float64(scale) + 0.5)
        biases[p] = np.int64(min(scaled, np.float64(sum_max)))
    return base, scale


@compiled
def tables_mode_a(
    queries: F32, lists: I64, starts: I64, centroids: F32, codebooks: F32,
    limits: F64, sum_max: int, tables: U16, biases: I64, bases: F64, scales: F32,
) -> None:  # fmt: skip
    """Tables per (query, list). ``lists[starts[q]:starts[q + 1]]`` are query q's.

    Args:
        codebooks: float32 [m, sub, 256], transposed for the inner loop.
        tables: out, uint16 [len(lists), m * 256].
        biases: out, int64 [len(lists)]; bases, scales: out, [n].
    """
    m = codebooks.shape[0]
    work = np.empty(2 * _BLOCK, dtype=np.float32)
    floats = np.empty((KEPT_TABLES, m * _CODES), dtype=np.float32)
    table_max = int(limits[0])
    for q in range(queries.shape[0]):
        first, count = starts[q], starts[q + 1] - starts[q]
        bases[q], scales[q] = 0.0, np.float32(1.0)
        if count == 0:
            continue
        minima = np.empty((count, m), dtype=np.float32)
        floors = np.empty(count, dtype=np.float64)
        spreads = np.empty(count, dtype=np.float64)
        largest = 0.0
        for p in range(count):
            slot = floats[min(p, KEPT_TABLES - 1)]
            _fill_l2(queries[q], centroids[lists[first + p]], codebooks, slot)
            floors[p], spreads[p], top = _lift(slot, minima[p], work)
            largest = max(largest, top)
        bases[q], scales[q] = _finish(
            floors, spreads, largest, limits, sum_max, biases[first : first + count]
        )
        for p in range(count):
            slot = floats[min(p, KEPT_TABLES - 1)]
            if p >= KEPT_TABLES - 1:
                _fill_l2(queries[q], centroids[lists[first + p]], codebooks, slot)
            _quantize(slot, minima[p], scales[q], table_max, tables[first + p])


@compiled
def _coarse_ip(query: F32, centroids: F32, lists: I64, out: F64) -> None:
    """``fixedpoint.coarse_ip`` of several lists.

    Each sum keeps its order; four side by side hide the latency of an addition.
    """
    count = lists.shape[0]
    for p in range(0, count, 4):
        # Past the end the last list is summed again, which changes nothing.
        a, b = centroids[lists[p]], centroids[lists[min(p + 1, count - 1)]]
        c, d = centroids[lists[min(p + 2, count - 1)]], centroids[lists[min(p + 3, count - 1)]]
        w, x, y, z = 0.0, 0.0, 0.0, 0.0
        for t in range(query.shape[0]):
            value = np.float64(query[t])
            w -= value * np.float64(a[t])
            x -= value * np.float64(b[t])
            y -= value * np.float64(c[t])
            z -= value * np.float64(d[t])
        out[p] = w
        out[min(p + 1, count - 1)] = x
        out[min(p + 2, count - 1)] = y
        out[min(p + 3, count - 1)] = z


@compiled
def tables_mode_b(
    queries: F32, lists: I64, starts: I64, centroids: F32, codebooks: F32,
    limits: F64, sum_max: int, tables: U16, biases: I64, bases: F64, scales: F32,
) -> None:  # fmt: skip
    """One table per query: tables are uint16 [n, m * 256]; else as mode A."""
    m = codebooks.shape[0]
    work = np.empty(2 * _BLOCK, dtype=np.float32)
    floats = np.empty(m * _CODES, dtype=np.float32)
    minima = np.empty(m, dtype=np.float32)
    table_max = int(limits[0])
    for q in range(queries.shape[0]):
        first, count = starts[q], starts[q + 1] - starts[q]
        bases[q], scales[q] = 0.0, np.float32(1.0)
        if count == 0:
            tables[q, :] = np.uint16(0)
            continue
        _fill_ip(queries[q], codebooks, floats)
        floor, spread, largest = _lift(floats, minima, work)
        coarse = np.empty(count, dtype=np.float64)
        _coarse_ip(queries[q], centroids, lists[first : first + count], coarse)
        for p in range(count):
            coarse[p] += floor
        spreads = np.full(count, spread)
        bases[q], scales[q] = _finish(
            coarse, spreads, largest, limits, sum_max, biases[first : first + count]
        )
        _quantize(floats, minima, scales[q], table_max, tables[q])


@compiled
def scan(
    jobs: I64, starts: I64, codes: U8, ids: I64, alive: U8, masks: U8, tables: U16,
    sum_max: int, sums: I64, rows: I64, counts: I32,
) -> None:  # fmt: skip
    """Scans runs of codes and keeps the k smallest per query by (sum, row id).

    Args:
        jobs: int64 [j, 5]: first row, rows, table, bias, offset of its lane
            mask in ``masks`` (-1: none).
        starts: int64 [n + 1], jobs of each query.
        codes: uint8 [rows, m]; ids: int64 [rows].
        alive: uint8 [rows], 0 marks an invalid lane; empty: all are valid.
        masks: uint8, one byte per lane of every masked job.
        tables: uint16 [t, m * 256].
        sums, rows: out, int64 [n, k]; counts: out, int32 [n].
    """
    k = sums.shape[1]
    has_dead = alive.shape[0] > 0
    for q in range(starts.shape[0] - 1):
        size = 0
        for job in range(starts[q], starts[q + 1]):
            first, count, bias, mask = jobs[job, 0], jobs[job, 1], jobs[job, 3], jobs[job, 4]
            table = tables[jobs[job, 2]]
            for i in range(count):
                if (has_dead and alive[first + i] == 0) or (mask >= 0 and masks[mask + i] == 0):
                    continue
                # Unsigned indices: a signed one is checked for being negative.
                entries = np.uint32(0)
                at = np.uintp(0)
                for code in codes[first + i]:
                    entries += np.uint32(table[at + np.uintp(code)])
                    at += np.uintp(_CODES)
                total = min(bias + np.int64(entries), sum_max)
                if size < k or total <= sums[q, 0]:
                    size = offer(sums[q], rows[q], size, total, ids[first + i])
        sort_heap(sums[q], rows[q], size)
        counts[q] = size


@compiled
def lane_masks(jobs: I64, filter_of_job: I64, bitmaps: U8, ids: I64, masks: U8) -> int:
    """Turns bitmaps over row ids into lane masks; sets jobs[:, 4]; returns bytes used."""
    used = 0
    for job in range(jobs.shape[0]):
        chosen = filter_of_job[job]
        if chosen < 0:
            jobs[job, 4] = -1
            continue
        jobs[job, 4] = used
        for i in range(jobs[job, 1]):
            row = ids[jobs[job, 0] + i]
            masks[used + i] = (bitmaps[chosen, row >> 3] >> np.uint8(row & 7)) & np.uint8(1)
        used += jobs[job, 1]
    return used


def warm_up() -> None:
    """Compiles every kernel by running it on one vector."""
    codebooks = np.zeros((1, 1, _CODES), dtype=np.float32)
    one = np.zeros((1, 1), dtype=np.float32)
    starts = np.array([0, 1], dtype=np.int64)
    tables = np.zeros((1, _CODES), dtype=np.uint16)
    limits = np.ones(4)
    lists, biases = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    bases, scales = np.zeros(1), np.zeros(1, dtype=np.float32)
    for build in (tables_mode_a, tables_mode_b):
        build(one, lists, starts, one, codebooks, limits, 1, tables, biases, bases, scales)
    jobs = np.array([[0, 1, 0, 0, -1]], dtype=np.int64)
    byte = np.zeros((1, 1), dtype=np.uint8)
    flat = byte[0]
    lane_masks(jobs, lists, byte, lists, flat)
    out = np.zeros((1, 1), dtype=np.int64)
    counts = np.zeros(1, dtype=np.int32)
    scan(jobs, starts, byte, lists, flat, flat, tables, 1, out, out.copy(), counts)


def compiled_signatures() -> dict[str, int]:
    """How many signatures each kernel has been compiled for."""
    kernels: tuple[Any, ...] = (tables_mode_a, tables_mode_b, scan, lane_masks)
    return {kernel.__name__: len(kernel.signatures) for kernel in kernels}


def limits_of(table_max: int, span_limit: float) -> NDArray[np.float64]:
    """The bounds of the scale, as the table kernels take them."""
    return np.array([float(table_max), span_limit, 2.0**22, 2.0**120])
