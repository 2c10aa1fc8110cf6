"""Where rows and their codes lie: dealt to shards, and grouped for the kernels.

Codes of one list lie in blocks of 64 lanes, and blocks in groups of eight, the
last group of a list shorter. A group of w blocks is m rows of 64 w bytes: row j
holds code byte j of its 64 w vectors. ``native/layout.hpp`` says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ragschema.types import I64, U8

LANES = 64
GROUP_BLOCKS = 8
_GROUP_ROWS = LANES * GROUP_BLOCKS


@dataclass(frozen=True)
class ShardLayout:
    """One shard's rows of a segment.

    Attributes:
        rows: int64 [n], row numbers within the segment, by list; ascending there until codes
            are written, then by bias (``build_write``).
        list_offsets: int64 [nlist + 1].
    """

    rows: I64
    list_offsets: I64


def deal(list_of: I64, nlist: int, num_shards: int, first_row_id: int) -> list[ShardLayout]:
    """Deals rows like cards, list after list.

    Consecutive rows of a list go to consecutive shards, so per list and in all
    the shards differ by at most one row. The first shard follows the segment's
    first row id: many small segments do not pile up on shard 0.
    """
    order = np.argsort(list_of, kind="stable").astype(np.int64)
    layouts = []
    for shard in range(num_shards):
        rows = order[(shard - first_row_id) % num_shards :: num_shards]
        offsets = np.zeros(nlist + 1, dtype=np.int64)
        np.cumsum(np.bincount(list_of[rows], minlength=nlist), out=offsets[1:])
        layouts.append(ShardLayout(rows, offsets))
    return layouts


def lane_offsets(list_offsets: I64) -> I64:
    """First lane of each list, padding counted: int64 [nlist + 1], multiples of 64."""
    blocks = -(-np.diff(list_offsets) // LANES)
    lanes = np.zeros(len(list_offsets), dtype=np.int64)
    np.cumsum(blocks * LANES, out=lanes[1:])
    return lanes


def grouped_bytes(list_offsets: I64, m: int) -> int:
    """Bytes of grouped codes, padding counted."""
    return int(lane_offsets(list_offsets)[-1]) * m


def group_list(codes: U8) -> U8:
    """One list's codes in groups.

    Args:
        codes: uint8 [n, m], n > 0.

    Returns:
        uint8 [m * 64 * ceil(n / 64)]; padding is zero.
    """
    n, m = codes.shape
    lanes = -(-n // LANES) * LANES
    out = np.zeros(lanes * m, dtype=np.uint8)
    full = n // _GROUP_ROWS * _GROUP_ROWS
    if full:
        groups = codes[:full].reshape(-1, _GROUP_ROWS, m)
        out[: full * m].reshape(-1, m, _GROUP_ROWS)[:] = groups.transpose(0, 2, 1)
    if full < n:
        out[full * m :].reshape(m, lanes - full)[:, : n - full] = codes[full:].T
    return out


def ungroup_list(grouped: U8, rows: int, m: int) -> U8:
    """The way back: uint8 [rows, m]."""
    out = np.empty((rows, m), dtype=np.uint8)
    full = rows // _GROUP_ROWS * _GROUP_ROWS
    groups = grouped[: full * m].reshape(-1, m, _GROUP_ROWS)
    out[:full].reshape(-1, _GROUP_ROWS, m)[:] = groups.transpose(0, 2, 1)
    if full < rows:
        out[full:] = grouped[full * m :].reshape(m, -1)[:, : rows - full].T
    return out


def group_codes(codes: U8, list_offsets: I64) -> U8:
    """Codes uint8 [n, m], list by list, in groups: uint8 [``grouped_bytes``]."""
    m = codes.shape[1]
    out = np.empty(grouped_bytes(list_offsets, m), dtype=np.uint8)
    for (first, last), (low, high) in _lists(list_offsets):
        out[low * m : high * m] = group_list(codes[first:last])
    return out


def ungroup_codes(grouped: U8, list_offsets: I64, m: int) -> U8:
    """The way back: uint8 [n, m]."""
    out = np.empty((int(list_offsets[-1]), m), dtype=np.uint8)
    for (first, last), (low, high) in _lists(list_offsets):
        out[first:last] = ungroup_list(grouped[low * m : high * m], last - first, m)
    return out


def _lists(list_offsets: I64) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows and lanes of each list that is not empty."""
    lanes = lane_offsets(list_offsets).tolist()
    rows = list_offsets.tolist()
    for number in np.flatnonzero(np.diff(list_offsets)).tolist():
        yield (rows[number], rows[number + 1]), (lanes[number], lanes[number + 1])
