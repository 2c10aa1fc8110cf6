"""The numeric contract of l2 in mode B: one table per query, a bias per code.

With the decoded code r of a row of list l, and s the index's shift::

    |q - x|^2 = |q - c_l|^2 + t - 2 (q - s) . r
    t         = |r|^2 + 2 (c_l - s) . r

``t`` does not depend on the query. It is kept as ``floor_l + step * u`` with u of
16 bits; floor and step follow from centroids and codebooks alone, so no row and
no shard changes them. A scan adds u through two tables of 256 words, one for each
of its bytes: adding them is all a lane has to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I64, U8, Metric
from retrieval_node.fixedpoint import (
    CODES,
    F64,
    U16,
    Contract,
    ScanTables,
    TableMode,
    check_magnitude,
    choose_scale,
    ordered_sum,
    quantize_biases,
    quantize_entries,
    saturating_sums,
    tables_ip,
)

LARGEST_CODE_BIAS = 65_535


def _ordered(values: F64) -> F64:
    """Sums along the last axis, in order, each step rounded to float64."""
    sums: F64 = np.add.accumulate(values, axis=-1)[..., -1]
    return sums


@dataclass(frozen=True, eq=False)
class CodeBiases:
    """The query-independent part of an index's squared distances.

    Attributes:
        centroids: float32 [nlist, dim]; zero where codes are not of residuals.
        codebooks: float32 [m, 256, dim / m].
        shift: float32 [dim].
        floors: float64 [nlist], the smallest t that a code of the list can have.
        step: one unit of u; 0 where every t is its floor.
    """

    centroids: F32
    codebooks: F32
    shift: F32
    floors: F64
    step: float

    @staticmethod
    def of(centroids: F32, codebooks: F32, shift: F32, residual: bool) -> CodeBiases:
        """Floors and step; see the attributes for shapes."""
        origin = centroids if residual else np.zeros_like(centroids)
        made = CodeBiases(origin, codebooks, shift, np.zeros(len(origin)), 0.0)
        lows, highs = np.empty(len(origin)), np.empty(len(origin))
        for number in range(len(origin)):
            columns = made.columns(number)
            lows[number] = _ordered(columns.min(axis=1))
            highs[number] = _ordered(columns.max(axis=1))
        widest = float((highs - lows).max()) if len(lows) else 0.0
        return replace(made, floors=lows, step=widest / LARGEST_CODE_BIAS)

    def columns(self, number: int) -> F64:
        """``|cb|^2 + 2 (c_l - s) . cb`` per codeword: float64 [m, 256].

        Components in order; each product and sum is rounded to float64.
        """
        m, _, sub = self.codebooks.shape
        books = self.codebooks.astype(np.float64)
        offset = self.centroids[number].astype(np.float64) - self.shift.astype(np.float64)
        pull = (2.0 * offset).reshape(m, 1, sub)
        return _ordered(books * books + pull * books)

    def encode(self, number: int, codes: U8) -> U16:
        """u of one list's rows, uint16 [n], from codes uint8 [n, m].

        ``min(floor((t - floor_l) / step + 0.5), 65 535)``, t summed in order.
        """
        if self.step == 0.0 or len(codes) == 0:
            return np.zeros(len(codes), dtype=np.uint16)
        columns = self.columns(number)
        t = _ordered(columns[np.arange(len(columns))[None, :], codes])
        steps = np.floor((t - self.floors[number]) / self.step + 0.5)
        stored: U16 = np.clip(steps, 0, LARGEST_CODE_BIAS).astype(np.uint16)
        return stored

    def words(self, scale: np.float32) -> U16:
        """What the two bytes of u add to a sum: uint16 [2, 256], low byte first.

        ``min(floor(byte * unit * scale + 0.5), 65 535)`` in float64, the unit
        being step and 256 step.
        """
        units = np.array([[self.step], [256.0 * self.step]])
        scaled = np.floor(np.arange(CODES) * units * np.float64(scale) + 0.5)
        words: U16 = np.minimum(scaled, float(LARGEST_CODE_BIAS)).astype(np.uint16)
        return words


@dataclass(frozen=True)
class RowScanTables(ScanTables):
    """``ScanTables`` with what the biases of codes add.

    Attributes:
        code_words: uint16 [2, 256], see ``CodeBiases.words``.
    """

    code_words: U16


def scan_tables_l2_rows(
    query: F32, lists: NDArray[np.integer], biases: CodeBiases, contract: Contract
) -> RowScanTables:
    """Integer table, biases and code words of one query: l2, mode B.

    Args:
        query: float32 [dim].
        lists: the probed lists, in order.

    Raises:
        InvalidInput: the query holds NaN, infinity or a component beyond MAX_ABS.
    """
    check_magnitude(query[None, :], "queries")
    table = tables_ip((query - biases.shift) * np.float32(2.0), biases.codebooks)
    m = len(table)
    if len(lists) == 0:
        empty, words = np.zeros((1, m, CODES), np.uint16), np.zeros((2, CODES), np.uint16)
        return RowScanTables(empty, np.zeros(0, np.int64), 0.0, np.float32(1.0), words)
    low = table.min(axis=1)
    lifted = table - low[:, None]
    apart = query.astype(np.float64) - biases.centroids[lists].astype(np.float64)
    floors = _ordered(apart * apart) + biases.floors[lists] + ordered_sum(low)
    base = float(floors.min())
    # The widest t is added: a list's span is at least as wide as any row needs.
    span = float(floors.max()) - base + ordered_sum(lifted.max(axis=1))
    span += biases.step * LARGEST_CODE_BIAS
    reach = max(abs(base), abs(base + span))
    upper = biases.step * 256.0 * (CODES - 1)
    # Two columns more than codebooks, each with a rounding of its own.
    found = choose_scale(float(lifted.max()), span, reach, m + 2, contract, upper)
    scale = np.float32(found)
    return RowScanTables(
        tables=quantize_entries(lifted, scale, contract.table_max)[None],
        biases=quantize_biases(floors, base, scale, contract.sum_max),
        base=base,
        scale=scale,
        code_words=biases.words(scale),
    )


def saturating_sums_rows(
    found: RowScanTables, bias: int, codes: U8, code_biases: U16, contract: Contract
) -> I64:
    """``min(bias + sum_j table[j, code_j] + words of u, sum_max)``: int64 [n]."""
    low, high = found.code_words.astype(np.int64)
    extra = low[code_biases & 255] + high[code_biases >> 8]
    open_sums = saturating_sums(found.tables[0], bias, codes, contract)
    sums: I64 = np.minimum(open_sums + extra, contract.sum_max)
    return sums


def has_code_biases(metric: Metric, residual: bool, mode: TableMode) -> bool:
    """Whether codes carry biases: squared distances with one table per query.

    Codes that are not of residuals have one table per query without them.
    """
    return metric is Metric.L2 and residual and mode is TableMode.PER_QUERY
