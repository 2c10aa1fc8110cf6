"""Which rows of a set no other row makes useless."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.stages import F64

I64 = NDArray[np.int64]
Index = NDArray[np.intp]

#: Rows compared with the kept ones at a time.
_CHUNK = 256


def undominated(chips: I64, servers: I64, rate: F64, finish: F64) -> Index:
    """Rows to keep, ascending.

    A row goes when another one with the same chips and servers has at least its rate and
    no later finish anywhere; of equal rows the first stays.

    Args:
        chips, servers: int64 [n].
        rate: float64 [n], larger is better.
        finish: float64 [n, columns], smaller is better.
    """
    if len(chips) == 0:
        return np.zeros(0, dtype=np.intp)
    # Whoever dominates a row comes before it in this order.
    order = np.lexsort((np.arange(len(chips)), finish.sum(axis=1), -rate, servers, chips))
    same = (np.diff(chips[order]) == 0) & (np.diff(servers[order]) == 0)
    groups = np.split(order, np.flatnonzero(~same) + 1)
    skyline = _scalar_skyline if finish.shape[1] == 1 else _skyline
    return np.sort(np.concatenate([skyline(group, rate, finish) for group in groups]))


def _scalar_skyline(order: Index, rate: F64, finish: F64) -> Index:
    times = finish[order, 0]
    best = np.minimum.accumulate(times)
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = times[1:] < best[:-1]
    return order[keep]


def _skyline(order: Index, rate: F64, finish: F64) -> Index:
    """Rows of one group in an order in which dominators come first."""
    kept = np.zeros(0, dtype=np.intp)
    for first in range(0, len(order), _CHUNK):
        some = order[first : first + _CHUNK]
        if len(kept):
            some = some[~_covered(finish[some], finish[kept])]
        kept = np.concatenate([kept, _within(some, finish)])
    return kept


def _covered(rows: F64, by: F64) -> NDArray[np.bool_]:
    no_later = by[None, :, :] <= rows[:, None, :]
    found: NDArray[np.bool_] = np.any(np.all(no_later, axis=2), axis=1)
    return found


def _within(rows: Index, finish: F64) -> Index:
    """The rows of one chunk that no earlier row of it covers."""
    if len(rows) < 2:
        return rows
    values = finish[rows]
    covers = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    return rows[~np.triu(covers, 1).any(axis=0)]
