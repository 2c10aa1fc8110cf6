"""The numeric contract of the PQ scan, and its reference in numpy.

Every other implementation (the kernels, the emulated device, hardware) gives
the same bits as this file. ``docs/numerics.md`` says the same in prose.

A query's distance to row x of list l, with PQ code y, is approximated by
``B_l + sum_j T_j[y_j]``:

* mode A (l2): ``T_lj[c] = |r_j - cb_j[c]|^2`` with the residual ``r = q - c_l``;
  a table per query and list, ``B_l = 0``.
* mode B (ip, cosine): ``T_j[c] = -q_j . cb_j[c]``; one table per query,
  ``B_l = -q . c_l``.
* mode B (l2): ``T_j[c] = -2 (q - s)_j . cb_j[c]``; one table per query, and a
  16-bit bias per code that no query changes (``fixedpoint_rows``).

Where codes are of the vectors themselves and not of residuals, mode A has one
table per query too, with ``r = q``, and ``B_l = 0`` in both modes.

The column minima move into ``B_l``; what is left is scaled by one factor per
query to unsigned integers of ``table_bits`` and summed with saturation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput
from ragschema.types import F32, I64, Metric

F64 = NDArray[np.float64]
U16 = NDArray[np.uint16]

CODES = 256
#: Components beyond this are refused: below it no float32 step can overflow.
MAX_ABS = 1e15
#: float32 lanes of the exact distance.
LANES = 16
_SCALE_LIMIT = 2.0**120


class TableMode(enum.Enum):
    """Which tables a query needs: one per probed list (A), or one in all (B)."""

    PER_LIST = "A"
    PER_QUERY = "B"


def usual_mode(metric: Metric, residual: bool) -> TableMode:
    """The mode without biases of codes, which every implementation has."""
    per_list = metric is Metric.L2 and residual
    return TableMode.PER_LIST if per_list else TableMode.PER_QUERY


class TablesBy(enum.Enum):
    """Who makes tables: a host, of floats, as here; a card, of integers (``fixedpoint_card``)."""

    HOST = "host"
    CARD = "card"


@dataclass(frozen=True)
class Contract:
    """Word widths of the scan, and where its tables come from.

    Attributes:
        table_bits: LW, bits of a table entry, 8 or 16.
        sum_bits: SW, bits of a sum and of a bias.
        tables: who makes them; everything behind the tables is the same.
    """

    table_bits: int = 16
    sum_bits: int = 24
    tables: TablesBy = TablesBy.HOST

    def __post_init__(self) -> None:
        if self.table_bits not in (8, 16):
            raise InvalidInput(f"{self.table_bits} is not 8 or 16", field="table_bits")
        if not self.table_bits < self.sum_bits <= 24:
            # 24: a float32 distance can still tell all sums apart.
            raise InvalidInput(
                f"{self.sum_bits} is not in {self.table_bits + 1}..24", field="sum_bits"
            )

    @property
    def table_max(self) -> int:
        return (1 << self.table_bits) - 1

    @property
    def sum_max(self) -> int:
        return (1 << self.sum_bits) - 1

    def span_limit(self, m: int) -> float:
        """Largest scaled span of distances; rounding cannot push it over sum_max."""
        return max(1.0, float(self.sum_max - 2 * (m + 1)))


@dataclass(frozen=True)
class ScanTables:
    """What the integer scan of one query needs, and the way back to floats.

    Attributes:
        tables: uint16 [t, m, 256]; t is the number of lists in mode A with
            residuals, else 1.
        biases: int64 [lists], 0 .. sum_max.
        base: the smallest possible distance, float64.
        scale: float32; ``distance = base + sum / scale``.
    """

    tables: U16
    biases: I64
    base: float
    scale: np.float32


def check_magnitude(vectors: F32, field: str) -> None:
    """Raises InvalidInput for NaN, infinity and components beyond MAX_ABS."""
    good = np.abs(vectors) <= np.float32(MAX_ABS)
    if not good.all():
        row = int(np.argwhere(~good)[0][0])
        raise InvalidInput(
            f"vector {row} holds a component that is not a number or beyond {MAX_ABS:g}",
            field=field,
            hint="send finite numbers of ordinary size",
        )


def tables_l2(residual: F32, codebooks: F32) -> F32:
    """Mode A tables: float32 [m, 256].

    Per entry ``acc = acc + (r - cb) * (r - cb)`` over the sub-dimensions in
    order, each operation rounded to float32, never fused.
    """
    m, codes, sub = codebooks.shape
    parts = residual.reshape(m, sub)
    acc = np.zeros((m, codes), dtype=np.float32)
    for t in range(sub):
        diff = parts[:, t : t + 1] - codebooks[:, :, t]
        acc = acc + diff * diff
    return acc


def tables_ip(query: F32, codebooks: F32) -> F32:
    """Mode B tables: float32 [m, 256], ``acc = acc - q * cb`` in the same order."""
    m, codes, sub = codebooks.shape
    parts = query.reshape(m, sub)
    acc = np.zeros((m, codes), dtype=np.float32)
    for t in range(sub):
        acc = acc - parts[:, t : t + 1] * codebooks[:, :, t]
    return acc


def coarse_ip(query: F32, centroid: F32) -> float:
    """``-q . c`` summed in order in float64, where each product is exact."""
    total = 0.0
    for a, b in zip(query.tolist(), centroid.tolist(), strict=True):
        total -= a * b
    return total


def ordered_sum(values: F32) -> float:
    """The values added in order, in float64."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total


def choose_scale(
    largest: float, span: float, reach: float, m: int, contract: Contract, code_bias: float = 0.0
) -> float:
    """Quanta per unit of distance, from the query, its lists and the codebooks alone.

    The smallest of four limits, each left out where its divisor is zero:

    * ``table_max / largest``: the largest table entry fits;
    * ``(sum_max - 2 (m + 1)) / span``: no sum saturates;
    * ``2^22 / reach``: a quantum is at least two float32 steps of the largest
      distance, so different sums are different float32 distances and merging
      shards by (distance, row id) is merging by (sum, row id);
    * ``65 535 / code_bias``: the largest bias of a code's upper byte fits 16 bits.

    With all of them zero every distance is zero and the scale is 1.
    """
    limits = [
        top / divisor
        for top, divisor in (
            (float(contract.table_max), largest),
            (contract.span_limit(m), span),
            (2.0**22, reach),
            (65_535.0, code_bias),
        )
        if divisor > 0.0
    ]
    if not limits:
        return 1.0
    return min(*limits, _SCALE_LIMIT)


def quantize_entries(values: F32, scale: np.float32, table_max: int) -> U16:
    """``min(trunc(fl32(fl32(v * scale) + 0.5)), table_max)`` for v >= 0."""
    rounded = np.trunc(values * scale + np.float32(0.5))
    entries: U16 = np.minimum(rounded, np.float32(table_max)).astype(np.uint16)
    return entries


def quantize_biases(biases: F64, base: float, scale: np.float32, sum_max: int) -> I64:
    """``min(floor((b - base) * scale + 0.5), sum_max)``, all in float64."""
    scaled = np.floor((biases - base) * np.float64(scale) + 0.5)
    return np.minimum(scaled, float(sum_max)).astype(np.int64)


def scan_tables(
    query: F32,
    centroids: F32,
    codebooks: F32,
    metric: Metric,
    contract: Contract,
    residual: bool = True,
) -> ScanTables:
    """Integer tables and biases of one query for its probed lists.

    Args:
        query: float32 [dim].
        centroids: float32 [lists, dim], of the probed lists only, in order.
        codebooks: float32 [m, 256, dim / m].
        residual: codes are of vectors minus their list's centroid.

    Raises:
        InvalidInput: the query holds NaN, infinity or a component beyond MAX_ABS.
    """
    check_magnitude(query[None, :], "queries")
    coarse = [0.0] * len(centroids)
    if metric is Metric.L2 and residual:
        tables = [tables_l2(query - centroid, codebooks) for centroid in centroids]
    elif metric is Metric.L2:
        tables = [tables_l2(query, codebooks)]
    else:
        tables = [tables_ip(query, codebooks)]
        if residual:
            coarse = [coarse_ip(query, centroid) for centroid in centroids]
    return _quantized(tables, coarse, codebooks.shape[0], contract)


def _quantized(tables: list[F32], coarse: list[float], m: int, contract: Contract) -> ScanTables:
    if not coarse:
        empty = np.zeros((len(tables), m, CODES), dtype=np.uint16)
        return ScanTables(empty, np.zeros(0, dtype=np.int64), 0.0, np.float32(1.0))
    minima = [table.min(axis=1) for table in tables]
    lifted = [table - low[:, None] for table, low in zip(tables, minima, strict=True)]
    floors = [ordered_sum(low) for low in minima]
    spreads = [ordered_sum(table.max(axis=1)) for table in lifted]
    largest = max(float(table.max()) for table in lifted)
    # Else one table serves all lists.
    of_list = range(len(coarse)) if len(tables) == len(coarse) else [0] * len(coarse)
    biases = np.array([c + floors[t] for c, t in zip(coarse, of_list, strict=True)])
    base = float(biases.min())
    span = max(float(b) - base + spreads[t] for b, t in zip(biases, of_list, strict=True))
    reach = max(abs(base), abs(base + span))
    scale = np.float32(choose_scale(largest, span, reach, m, contract))
    return ScanTables(
        tables=np.stack([quantize_entries(t, scale, contract.table_max) for t in lifted]),
        biases=quantize_biases(biases, base, scale, contract.sum_max),
        base=base,
        scale=scale,
    )


def saturating_sums(table: U16, bias: int, codes: NDArray[np.uint8], contract: Contract) -> I64:
    """``min(bias + sum_j table[j, code_j], sum_max)``: int64 [n].

    Entries are not negative, so saturating once at the end and saturating at
    every addition give the same value.
    """
    picked = table[np.arange(table.shape[0])[None, :], codes].astype(np.int64)
    sums: I64 = np.minimum(picked.sum(axis=1) + bias, contract.sum_max)
    return sums


def smallest(keys: NDArray[Any], ids: I64, k: int) -> NDArray[np.intp]:
    """Positions of the k smallest by (key, row id), in that order."""
    return np.lexsort((ids, keys))[:k]


def to_distance(sums: I64, base: float, scale: np.float32) -> F32:
    """``fl32(base + sum / scale)``, evaluated in float64."""
    return (base + sums.astype(np.float64) / np.float64(scale)).astype(np.float32)


def exact_distances(query: F32, vectors: F32, metric: Metric) -> F32:
    """Exact distances: float32 [n], in a fixed order of evaluation.

    Lane u of 16 takes the components t = u mod 16 in ascending order; then the
    lanes are added, 0 first. Every operation is rounded to float32.
    """
    n, dim = vectors.shape
    lanes = np.zeros((n, LANES), dtype=np.float32)
    for t in range(dim):
        if metric is Metric.L2:
            diff = query[t] - vectors[:, t]
            lanes[:, t % LANES] += diff * diff
        else:
            lanes[:, t % LANES] -= query[t] * vectors[:, t]
    total = np.zeros(n, dtype=np.float32)
    for u in range(LANES):
        total = total + lanes[:, u]
    return total
