"""Tables that the card makes, in plain numpy: a codebook, vectors, their records, and the tables.

The records are docs/fpga-registers.md's, their arithmetic is fpga/README.md's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BEAT = 64
MOST_SUM = 65535


@dataclass(frozen=True)
class Maker:
    """A build's table maker (m columns, lw bits of an entry, macs) and the steps in use."""

    m: int
    lw: int
    macs: int
    steps: int

    @property
    def row_beats(self) -> int:
        """Beats of 32 bits per column."""
        return max(1, self.m // 16)

    @property
    def word_beats(self) -> int:
        return self.m * self.macs * 2 // BEAT

    @property
    def vector_beats(self) -> int:
        return 1 + self.row_beats + self.steps * self.word_beats

    @property
    def book_beats(self) -> int:
        return 256 * (self.row_beats + self.steps * self.word_beats)

    @property
    def table_beats(self) -> int:
        return 256 * self.m * self.lw // 8 // BEAT

    def words(self, components: NDArray[np.int16]) -> NDArray[np.uint8]:
        """Components [n, m, steps * macs] as words: uint8 [n, bytes]."""
        parts = components.reshape(-1, self.m, self.steps, self.macs).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(parts).view(np.uint8).reshape(len(components), -1)

    def rows(self, values: NDArray[np.int32]) -> NDArray[np.uint8]:
        """A value per column, [n, m], in whole beats: uint8 [n, bytes]."""
        out = np.zeros((len(values), self.row_beats * BEAT // 4), np.int32)
        out[:, : self.m] = values
        return out.view(np.uint8)


@dataclass(frozen=True)
class Book:
    """norms: int32 [256, m]; components: int16 [256, m, steps * macs]."""

    maker: Maker
    norms: NDArray[np.int32]
    components: NDArray[np.int16]

    @staticmethod
    def of(maker: Maker, rng: np.random.Generator, most: int = 4000) -> Book:
        """A random one; components are up to so large, and a few as large as can be."""
        shape = (256, maker.m, maker.steps * maker.macs)
        components = rng.integers(-most, most, shape, endpoint=True).astype(np.int16)
        components[rng.random(shape) < 0.02] = rng.choice([-32768, 32767])
        norms = rng.integers(0, 1 << 29, (256, maker.m), endpoint=True).astype(np.int32)
        return Book(maker, norms, components)

    def record(self) -> NDArray[np.uint8]:
        """As the card reads it."""
        parts = [self.maker.rows(self.norms), self.maker.words(self.components)]
        return np.concatenate(parts, axis=1).ravel()


@dataclass(frozen=True)
class Vector:
    """low: int32 [m]; components: int16 [m, steps * macs]."""

    norm_shift: int
    sum_shift: int
    factor: int
    low: NDArray[np.int32]
    components: NDArray[np.int16]

    def record(self, maker: Maker, rng: np.random.Generator) -> NDArray[np.uint8]:
        """As the card reads it; what it does not look at is random."""
        head = rng.integers(0, 1 << 32, BEAT // 4, dtype=np.uint32)
        head[:3] = self.norm_shift, self.sum_shift, self.factor
        parts = [head.view(np.uint8), maker.rows(self.low[None])[0],
                 maker.words(self.components[None])[0]]  # fmt: skip
        return np.concatenate(parts)

    def distances(self, book: Book) -> NDArray[np.int64]:
        """What lies above the offsets, [256, m], modulo 2^32."""
        dot = np.einsum(
            "cju,ju->cj", book.components.astype(np.int64), self.components.astype(np.int64)
        )
        norm = book.norms.astype(np.int64) >> self.norm_shift if self.norm_shift <= 31 else 0
        found: NDArray[np.int64] = (norm - dot - self.low) & 0xFFFFFFFF
        return found

    def sums(self, book: Book) -> NDArray[np.int64]:
        """The same, shifted, before it is held at 65 535."""
        found: NDArray[np.int64] = self.distances(book) >> (self.sum_shift & 31)
        return found

    def table(self, book: Book) -> NDArray[np.int64]:
        """Entries [256, m]."""
        entries = np.minimum(self.sums(book), MOST_SUM) * self.factor >> 16
        if book.maker.lw == 8:
            entries = np.minimum(entries + 128 >> 8, 255)
        found: NDArray[np.int64] = entries
        return found


def vector_of(
    book: Book, rng: np.random.Generator, norm_shift: int, factor: int = 65535, over: int = 0
) -> Vector:
    """A random vector whose columns start at 0, as a host makes it.

    Args:
        over: bits of its largest value above 16, which saturate.
    """
    maker = book.maker
    shape = (maker.m, maker.steps * maker.macs)
    components = rng.integers(-4000, 4000, shape, endpoint=True).astype(np.int16)
    plain = Vector(norm_shift, 0, factor, np.zeros(maker.m, np.int32), components)
    signed = plain.distances(book)
    signed = np.where(signed >= 1 << 31, signed - (1 << 32), signed)
    low = signed.min(axis=0).astype(np.int32)
    largest = int((signed - low).max())
    shift = max(0, largest.bit_length() - 16 - over)
    return Vector(norm_shift, shift, factor, low, components)
