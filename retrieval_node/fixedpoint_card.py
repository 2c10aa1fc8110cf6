"""The numeric contract of tables that a card makes itself, from integers.

The host sends a vector in place of a table: the residual of a query and a list
(l2 with residual codes) or the query. Codebook and vectors are rounded to 16-bit
integers so that a column's inner products fit 31 bits; what the card then does to
an entry is two shifts and a product, exact on every implementation::

    d     = (H[c] >> norm_shift) - x . cb[c] - low        H: half the codeword's squared norm
    entry = (min(d >> sum_shift, 65535) * factor) >> 16

``low`` lies below every entry of its column and moves into the list's bias (but for
what turns the two cut divisions into rounding ones, on average). It is known before
any table is made, from the lengths of the vector and of the longest codeword alone
(Cauchy and Schwarz), and so is the scale. Distances differ from those of
``fixedpoint`` by the rounding of components, some 2^-13 of the largest.

``docs/numerics.md`` says the same in prose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I64, Metric
from retrieval_node.fixedpoint import (
    F64,
    U16,
    Contract,
    ScanTables,
    TablesBy,
    check_magnitude,
    choose_scale,
    coarse_ip,
    quantize_biases,
    scan_tables,
)

I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

#: A norm shift that leaves norms out.
NO_NORMS = 32
_MAX_SUM_SHIFT = 31
_FACTOR_BITS = 16
#: Offsets stay within 32 bits. More is asked for where all entries are next to nothing.
_MOST_ROUNDING = float((1 << 30) - 8)


def component_limit(sub: int) -> int:
    """Largest component of vectors and codewords: ``sub * limit^2`` is at most 2^30."""
    return min(32_767, math.isqrt((1 << 30) // sub))


@dataclass(frozen=True, eq=False)
class IntegerBook:
    """A codebook as a card holds it.

    Attributes:
        unit: float64, integers per unit of the floats.
        components: int16 [m, 256, sub].
        norms: int32 [m, 256], half the squared length, rounded down.
        lengths: int64 [m], the largest squared length of a column's codewords.
    """

    unit: float
    components: I16
    norms: I32
    lengths: I64

    @staticmethod
    def of(codebooks: F32) -> IntegerBook:
        """Rounds codebooks, float32 [m, 256, sub]."""
        limit = component_limit(codebooks.shape[2])
        unit = _unit(float(np.abs(codebooks).max(initial=0.0)), limit)
        components = _rounded(codebooks, unit)
        squared = (components.astype(np.int64) ** 2).sum(axis=2)
        return IntegerBook(unit, components, (squared >> 1).astype(np.int32), squared.max(axis=1))


@dataclass(frozen=True, eq=False)
class Vectors:
    """What a card gets of one query.

    Attributes:
        components: int16 [t, dim]; t is the number of lists with l2 and residuals, else 1.
        lows: int32 [t, m], below every entry of the column, by what rounding needs.
        norm_shift, sum_shift, factor: as the module says.
        biases: int64 [lists], 0 .. sum_max.
        base, scale: as of ``fixedpoint.ScanTables``.
    """

    components: I16
    lows: I32
    norm_shift: int
    sum_shift: int
    factor: int
    biases: I64
    base: float
    scale: np.float32


def _unit(largest: float, limit: int) -> float:
    return limit / largest if largest > 0.0 else 1.0


def _rounded(values: F32, unit: float) -> I16:
    """``rint(v * unit)`` in float64, halves to even."""
    return np.rint(values.astype(np.float64) * unit).astype(np.int16)


def _norm_shift(largest: float, unit: float, limit: int) -> int:
    """By how many bits vectors are coarser than the codebook, so that they fit."""
    shift = 0
    while largest * unit * 2.0**-shift > limit:
        shift += 1
    return shift


@dataclass(frozen=True, eq=False)
class _Bounds:
    """int64 [t, m]: ``low`` is below a column's entries, ``width`` above their spread."""

    low: I64
    width: I64


def _bounds(lengths: I64, book: IntegerBook, shift: int | None) -> _Bounds:
    """Bounds of the columns' entries, in float64 and widened by two units.

    Args:
        lengths: int64 [t, m], squared lengths of the vectors' columns.
        shift: of the norms; None: there are none.
    """
    own, longest = np.sqrt(lengths.astype(np.float64)), np.sqrt(book.lengths.astype(np.float64))
    reach = own * longest
    low, high = -reach, reach
    if shift is not None:
        coarser = 2.0**shift
        norm = book.lengths.astype(np.float64) * 0.5 / coarser
        # The parabola |cb|^2 / 2 - |x| |cb| has its lowest point within or beyond reach.
        inside = own * coarser <= longest
        low = np.where(inside, -(lengths.astype(np.float64) * coarser * 0.5), norm - reach)
        high = norm + reach
    lows = np.floor(low).astype(np.int64) - 2
    return _Bounds(lows, np.floor(high).astype(np.int64) + 2 - lows)


def _factor(width: int, per_unit: float) -> tuple[int, int]:
    """Sum shift and factor that come next below ``per_unit`` entries per unit of d."""
    shift = max(0, width.bit_length() - 16)
    wanted = per_unit * 2.0 ** (_FACTOR_BITS + shift)
    while wanted < 32_768.0 and shift < _MAX_SUM_SHIFT:
        shift += 1
        wanted *= 2.0
    return shift, int(min(65_535.0, wanted))


def _rounding(shift: int, factor: int) -> int:
    """What offsets are lowered by, so that the two cut divisions are right on average."""
    wanted = 2.0**shift * (0.5 + 32_768.0 / factor) if factor > 0 else 0.0
    return int(min(wanted, _MOST_ROUNDING))


def query_vectors(
    query: F32,
    centroids: F32,
    book: IntegerBook,
    metric: Metric,
    contract: Contract,
    residual: bool = True,
) -> Vectors:
    """The vectors of one query for its probed lists; arguments as ``fixedpoint.scan_tables``.

    Raises:
        InvalidInput: the query holds NaN, infinity or a component beyond MAX_ABS.
    """
    check_magnitude(query[None, :], "queries")
    squared = metric is Metric.L2
    per_list = squared and residual
    floats = query[None, :] - centroids if per_list else query[None, :]
    m, _, sub = book.components.shape
    limit = component_limit(sub)
    largest = float(np.abs(floats).max(initial=0.0))
    shift = _norm_shift(largest, book.unit, limit) if squared else None
    unit = _unit(largest, limit) if shift is None else book.unit * 2.0**-shift
    components = _rounded(floats, unit)
    lengths = (components.astype(np.int64).reshape(-1, m, sub) ** 2).sum(axis=2)
    bounds = _bounds(lengths, book, shift)
    step = (2.0 if squared else 1.0) / (unit * book.unit)
    floors = bounds.low.sum(axis=1).astype(np.float64)
    if shift is not None:
        floors = lengths.sum(axis=1).astype(np.float64) * 2.0**shift * 0.5 + floors
    floors = floors * step
    spreads = bounds.width.sum(axis=1).astype(np.float64) * step
    if not per_list:
        floors, spreads = (np.repeat(one, len(centroids)) for one in (floors, spreads))
        if not squared and residual:
            floors = np.array([coarse_ip(query, c) for c in centroids]) + floors
    numbers = _numbers(floors, spreads, int(bounds.width.max(initial=1)), step, m, contract)
    norm_shift = NO_NORMS if shift is None else min(shift, NO_NORMS)
    lows = (bounds.low - _rounding(*numbers[:2])).astype(np.int32)
    return Vectors(components, lows, norm_shift, *numbers)


def _numbers(
    floors: F64, spreads: F64, width: int, step: float, m: int, contract: Contract
) -> tuple[int, int, I64, float, np.float32]:
    """Sum shift, factor, biases, base and scale of one query."""
    if len(floors) == 0:
        return 0, 0, np.zeros(0, dtype=np.int64), 0.0, np.float32(1.0)
    base = float(floors.min())
    span = float((floors - base + spreads).max())
    reach = max(abs(base), abs(base + span))
    wanted = choose_scale(float(width) * step, span, reach, m, contract)
    finer = 2.0 ** (16 - contract.table_bits)
    shift, factor = _factor(width, wanted * finer * step)
    scale = np.float32(wanted)
    if factor > 0:
        scale = np.float32(factor * 2.0 ** -(_FACTOR_BITS + shift) / step / finer)
    return shift, factor, quantize_biases(floors, base, scale, contract.sum_max), base, scale


def make_tables(book: IntegerBook, vectors: Vectors, table_bits: int) -> U16:
    """The tables that a card makes: uint16 [t, m, 256]."""
    m, _, sub = book.components.shape
    parts = vectors.components.astype(np.int64).reshape(-1, m, sub)
    dots = np.einsum("tjs,jcs->tjc", parts, book.components.astype(np.int64))
    norms = np.zeros_like(book.norms)
    if vectors.norm_shift < NO_NORMS:
        norms = book.norms >> vectors.norm_shift
    lifted = norms[None, :, :] - dots - vectors.lows.astype(np.int64)[:, :, None]
    assert lifted.min(initial=0) >= 0, "offsets lie below all entries"
    entries = np.minimum(lifted >> vectors.sum_shift, 65_535) * vectors.factor >> _FACTOR_BITS
    if table_bits == 8:
        entries = np.minimum((entries + 128) >> 8, 255)
    made: U16 = entries.astype(np.uint16)
    return made


def contract_tables(
    query: F32,
    centroids: F32,
    codebooks: F32,
    metric: Metric,
    contract: Contract,
    residual: bool = True,
) -> ScanTables:
    """``fixedpoint.scan_tables``, made as ``contract.tables`` says."""
    if contract.tables is TablesBy.HOST:
        return scan_tables(query, centroids, codebooks, metric, contract, residual)
    book = IntegerBook.of(codebooks)
    return scan_tables_card(query, centroids, book, metric, contract, residual)


def scan_tables_card(
    query: F32,
    centroids: F32,
    book: IntegerBook,
    metric: Metric,
    contract: Contract,
    residual: bool = True,
) -> ScanTables:
    """``fixedpoint.scan_tables`` where the card makes the tables."""
    vectors = query_vectors(query, centroids, book, metric, contract, residual)
    tables = make_tables(book, vectors, contract.table_bits)
    return ScanTables(tables, vectors.biases, vectors.base, vectors.scale)
