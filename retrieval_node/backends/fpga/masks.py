"""Lane masks: which rows of a list are neither deleted nor filtered out."""

from __future__ import annotations

import numpy as np

from ragschema.types import I64, U8
from retrieval_node.backends.fpga.records import NO_MASK, U32
from retrieval_node.backends.fpga.tables import Piece
from retrieval_node.layout import LANES, lane_offsets
from retrieval_node.native.loader import require_native
from retrieval_node.segment import SegmentRows

#: Fields of a job as ``contract_masks`` takes it; those not named are unused.
_FIELDS, _ROWS, _FIRST, _MASK = 6, 1, 2, 5


def live_masks(segment: SegmentRows, live: U8 | None) -> U8 | None:
    """A bit per lane of the whole segment; None when no row is deleted.

    A list's bits start at its first lane in the file (``layout.lane_offsets``).
    """
    if live is None:
        return None
    jobs = _jobs(segment, np.arange(len(segment.list_offsets) - 1))
    unfiltered = np.full(len(jobs), -1, dtype=np.int64)
    masks = np.zeros(max(LANES, int(lane_offsets(segment.list_offsets)[-1])) // 8, dtype=np.uint8)
    require_native().contract_masks(
        jobs, segment.ids, segment.row_start, live, None, unfiltered, masks
    )
    return masks


def live_words(segment: SegmentRows, lists: I64) -> I64:
    """First word of each list in ``live_masks``: int64 [lists]."""
    words: I64 = lane_offsets(segment.list_offsets)[lists] // LANES
    return words


def is_filtered(piece: Piece) -> bool:
    filter_of = piece.request.filter_of
    return filter_of is not None and bool((filter_of >= 0).any())


def piece_masks(segment: SegmentRows, piece: Piece) -> tuple[U8, I64]:
    """Masks of a filtered piece, deletions included, and each list's first word."""
    request = piece.request
    assert request.filter_of is not None, "a filtered piece"
    filter_of = request.filter_of.astype(np.int64)[piece.of_query]
    jobs = _jobs(segment, piece.lists)
    fill = require_native().contract_masks
    given = (jobs, segment.ids, segment.row_start, request.live, request.filters, filter_of)
    masks = np.zeros(max(8, fill(*given, None)), dtype=np.uint8)
    fill(*given, masks)
    return masks, jobs[:, _MASK] // LANES


def no_words(count: int) -> U32:
    """Of lists that have no mask."""
    return np.full(count, NO_MASK, dtype=np.uint32)


def _jobs(segment: SegmentRows, lists: I64) -> I64:
    jobs = np.zeros((len(lists), _FIELDS), dtype=np.int64)
    jobs[:, _FIRST] = segment.list_offsets[lists]
    jobs[:, _ROWS] = segment.list_offsets[lists + 1] - jobs[:, _FIRST]
    return jobs
