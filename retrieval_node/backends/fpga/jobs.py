"""The device's jobs: which run of codes is scanned with which table, bias and mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragschema.types import F32, I64, U8
from retrieval_node.backends.base import ScanRequest
from retrieval_node.backends.fpga.driver import ScanUnit
from retrieval_node.fixedpoint import F64
from retrieval_node.layout import lane_offsets
from retrieval_node.native.loader import require_native
from retrieval_node.segment import SegmentRows

#: byte offset of its codes, rows, first row, table, bias, lane mask in bits or -1
JOB_FIELDS = 6
_MASK = 5


@dataclass(frozen=True, eq=False)
class Piece:
    """Queries that share one start of the device.

    Attributes:
        lists: int64, list ids of all queries, one after the other.
        starts: int64 [n + 1], borders of the queries in ``lists``.
    """

    request: ScanRequest
    lists: I64
    starts: I64


@dataclass(frozen=True, eq=False)
class Quantized:
    """Integer side of a piece: biases per list, base and scale per query.

    Attributes:
        table_of: int64 [lists], the table each list is scanned with.
        m: sub-quantisers.
    """

    biases: I64
    bases: F64
    scales: F32
    num_tables: int
    table_of: I64
    m: int


def flatten(request: ScanRequest) -> Piece:
    """Drops the padding of the lists."""
    wanted = request.lists >= 0
    starts = np.zeros(len(wanted) + 1, dtype=np.int64)
    np.cumsum(wanted.sum(axis=1), out=starts[1:])
    return Piece(request, request.lists[wanted].astype(np.int64), starts)


def live_masks(segment: SegmentRows, live: U8 | None) -> U8 | None:
    """A bit per lane of the whole segment; None when no row is deleted.

    Bit i belongs to lane i as codes lie, so a list's bits start at its first lane.
    """
    if live is None:
        return None
    jobs = np.zeros((len(segment.list_offsets) - 1, JOB_FIELDS), dtype=np.int64)
    jobs[:, 1] = np.diff(segment.list_offsets)
    jobs[:, 2] = segment.list_offsets[:-1]
    unfiltered = np.full(len(jobs), -1, dtype=np.int64)
    masks = np.zeros(max(1, int(lane_offsets(segment.list_offsets)[-1]) // 8), dtype=np.uint8)
    require_native().contract_masks(
        jobs, segment.ids, segment.row_start, live, None, unfiltered, masks
    )
    return masks


def jobs_of(
    unit: ScanUnit, segment: SegmentRows, quantized: Quantized, piece: Piece
) -> tuple[I64, int]:
    """Jobs int64 [lists, 6] of one segment, and the bytes of lane masks sent with them.

    With no bytes, masks are those of the segment's live rows, on the device already.
    """
    lists, request = piece.lists, piece.request
    lanes = lane_offsets(segment.list_offsets)
    jobs = np.empty((len(lists), JOB_FIELDS), dtype=np.int64)
    jobs[:, 0] = lanes[lists] * quantized.m
    jobs[:, 2] = segment.list_offsets[lists]
    jobs[:, 1] = segment.list_offsets[lists + 1] - jobs[:, 2]
    jobs[:, 3] = quantized.table_of
    jobs[:, 4] = quantized.biases
    if request.filter_of is None or not (request.filter_of >= 0).any():
        jobs[:, _MASK] = -1 if request.live is None else lanes[lists]
        return jobs, 0
    filter_of = np.repeat(request.filter_of.astype(np.int64), np.diff(piece.starts))
    fill = require_native().contract_masks
    given = (jobs, segment.ids, segment.row_start, request.live, request.filters, filter_of)
    need: int = fill(*given, None)
    masks = unit.masks.view(np.uint8, (max(need, 1),))
    fill(*given, masks)
    return jobs, max(need, 1)
