"""From the card's order, (sum, tag), to the contract's, (sum, row id).

Tags follow lists, so rows of equal sum in different lists may come in another
order. The card is asked for some results more than wanted: where the last of
them has a larger sum than the last wanted one, sorting settles it. Where it has
not, the host scans the query itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.types import I64
from retrieval_node.backends.fpga.records import U32, Answer
from retrieval_node.backends.fpga.tables import Piece, Quantized
from retrieval_node.fixedpoint import CODES, Contract, smallest
from retrieval_node.fixedpoint_rows import CodeBiases
from retrieval_node.layout import lane_offsets, ungroup_list
from retrieval_node.segment import SegmentRows


@dataclass(frozen=True, eq=False)
class Settled:
    """Results in the contract's order.

    Attributes:
        sums: int64 [n, k]; rows: int64 [n, k], relative to the segment.
        counts: int64 [n].
        open_queries: those that ties leave open; theirs mean nothing.
    """

    sums: I64
    rows: I64
    counts: I64
    open_queries: I64


def settle(answer: Answer, k: int) -> Settled:
    """The best k of an answer that holds more."""
    asked = answer.sums.shape[1]
    sums, ids = answer.sums, answer.ids
    valid = np.arange(asked)[None, :] < answer.counts[:, None]
    equal = valid[:, 1:] & (sums[:, 1:] == sums[:, :-1])
    if equal.any():
        some = np.flatnonzero(equal.any(axis=1))
        sums, ids = sums.copy(), ids.copy()
        order = np.lexsort((ids[some], sums[some], ~valid[some]), axis=-1)
        sums[some] = np.take_along_axis(sums[some], order, axis=1)
        ids[some] = np.take_along_axis(ids[some], order, axis=1)
    full = answer.counts == asked
    left_open = full & (_column(sums, k - 1) == _column(sums, asked - 1))
    return Settled(
        sums[:, :k].astype(np.int64),
        ids[:, :k].astype(np.int64),
        np.minimum(answer.counts, k),
        np.flatnonzero(left_open),
    )


def _column(values: U32, at: int) -> U32:
    return values[:, at]


def host_scan(
    segment: SegmentRows, piece: Piece, quantized: Quantized, query: int, k: int,
    contract: Contract, encoder: CodeBiases | None, m: int,
) -> tuple[I64, I64]:  # fmt: skip
    """Sums and rows (relative) of one query, by the reference itself.

    Raises:
        CorruptData: stored bytes are not what was written.
    """
    ids, request = segment.ids.astype(np.int64), piece.request
    sums: list[I64] = [np.zeros(0, np.int64)]
    rows: list[I64] = [np.zeros(0, np.int64)]
    for at in range(int(piece.starts[query]), int(piece.starts[query + 1])):
        number = int(piece.lists[at])
        own = ids[segment.list_offsets[number] : segment.list_offsets[number + 1]]
        found = _list_sums(segment, quantized, at, number, query, encoder, m)
        keep = _passes(request.live, own + segment.row_start)
        if request.filter_of is not None and request.filter_of[query] >= 0:
            assert request.filters is not None, "checked with the request"
            bitmap = request.filters[request.filter_of[query]]
            keep &= _passes(bitmap, own + segment.row_start)
        sums.append(np.minimum(found, contract.sum_max)[keep])
        rows.append(own[keep])
    all_sums, all_rows = np.concatenate(sums), np.concatenate(rows)
    best = smallest(all_sums, all_rows, k)
    return all_sums[best], all_rows[best]


def _list_sums(
    segment: SegmentRows, quantized: Quantized, at: int, number: int, query: int,
    encoder: CodeBiases | None, m: int,
) -> I64:  # fmt: skip
    """Sums of one list before saturation; entries are not negative, so once is enough."""
    assert segment.codes is not None, "a coded segment"
    assert quantized.tables is not None, "made by the host"
    table = quantized.tables[quantized.table_of[at]].astype(np.int64)
    rows = int(segment.list_offsets[number + 1] - segment.list_offsets[number])
    lanes = lane_offsets(segment.list_offsets)
    if rows == 0:
        return np.zeros(0, np.int64)
    codes = ungroup_list(segment.codes[lanes[number] * m : lanes[number + 1] * m], rows, m)
    total: I64 = table[codes, np.arange(m)[None, :]].sum(axis=1) + quantized.biases[at]
    if encoder is not None and quantized.code_words is not None:
        low, high = quantized.code_words[query].reshape(2, CODES).astype(np.int64)
        extra = encoder.encode(number, codes)
        total = total + low[extra & 255] + high[extra >> 8]
    return total


def _passes(bitmap: NDArray[np.uint8] | None, rows: I64) -> NDArray[np.bool_]:
    """Whether each row's bit is set; rows past the bitmap have none."""
    if bitmap is None:
        return np.ones(len(rows), dtype=bool)
    inside = rows // 8 < len(bitmap)
    bytes_of = bitmap[np.where(inside, rows // 8, 0)] if len(bitmap) else np.zeros(len(rows), int)
    set_bits: NDArray[np.bool_] = inside & (bytes_of >> (rows % 8) & 1).astype(bool)
    return set_bits
