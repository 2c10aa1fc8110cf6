"""What a bitstream fixes, and the cycles that follow from it alone; see ``model``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput
from retrieval_node.fixedpoint import CODES

BEAT_BYTES: Final = 64
TABLE_CYCLES: Final = 256
_WIDTHS = (8, 16, 32, 64)
_ENTRY_BYTES: Final = 2
#: Stalls per result and ln P, fitted to the RTL.
_QUEUE_SHARE: Final = 0.75
#: Of the table maker, from a vector's last beat to its first row, but for the adders' levels.
_MAKER_STAGES: Final = 13


@dataclass(frozen=True)
class Pipeline:
    """Constants of the core, in cycles.

    Attributes:
        gap_cycles: g, between two lists.
        settle_cycles: S of a start: reading descriptors, the pipeline's end and the
            last write, with memory that answers after 40 cycles.
        between_cycles: the same of each further query of a start.
    """

    gap_cycles: int = 1
    settle_cycles: int = 192
    between_cycles: int = 20

    def __post_init__(self) -> None:
        for name in ("gap_cycles", "settle_cycles", "between_cycles"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{getattr(self, name)} is negative", field=name)


@dataclass(frozen=True)
class Build:
    """What one bitstream fixes.

    Attributes:
        channels: memory channels, each read one beat of 64 bytes per cycle.
        m: sub-quantisers, bytes per code.
        clock_hz: a target.
        beats_per_cycle: eta, what memory delivers per channel, in (0, 1].
    """

    channels: int
    m: int
    clock_hz: float
    beats_per_cycle: float = 1.0
    pipeline: Pipeline = Pipeline()

    def __post_init__(self) -> None:
        if self.m not in _WIDTHS:
            raise InvalidInput(f"{self.m} is not one of 8, 16, 32, 64", field="m")
        if self.channels < 1:
            raise InvalidInput(f"{self.channels} is less than 1", field="channels")
        if not self.clock_hz > 0.0:
            raise InvalidInput(f"{self.clock_hz} is not above 0", field="clock_hz")
        if not 0.0 < self.beats_per_cycle <= 1.0:
            raise InvalidInput(f"{self.beats_per_cycle} is not in (0, 1]", field="beats_per_cycle")

    @property
    def lanes(self) -> int:
        """P, codes per cycle at best."""
        return self.channels * BEAT_BYTES // self.m

    @property
    def table_cycles(self) -> int:
        """T, to load a table: a row, or a beat of a longer row, per cycle."""
        return TABLE_CYCLES * max(1, self.m * _ENTRY_BYTES // BEAT_BYTES)

    def load_cycles(self, biased: bool, made: MadeTables | None = None) -> int:
        """T, with the words of biases of codes where there are some, or of tables made here."""
        loaded = self.table_cycles + (TABLE_CYCLES if biased else 0)
        return loaded if made is None else max(loaded, CODES * made.steps)

    def bias_cycles(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Cycles of a channel's port for the biases of lists of so many codes: int64, as codes."""
        beats = -(-codes.astype(np.int64) // self.lanes)
        needed = np.ceil(-(-beats // (self.m // 2)) / self.beats_per_cycle)
        return np.asarray(needed, dtype=np.int64)

    def queue_cycles(self, k: int) -> int:
        """Stalls of the top-K queue: keys come faster than one per cycle at first."""
        return round(_QUEUE_SHARE * k * math.log(self.lanes))


@dataclass(frozen=True)
class MadeTables:
    """Tables that the card makes of vectors; the names are those of docs/fpga-registers.md.

    Attributes:
        macs: components per column and cycle, a power of two.
        steps: words per code and vector.
        vector_beats: of a vector's record.
        codebook: one is read first.
    """

    macs: int
    steps: int
    vector_beats: int
    codebook: bool = False

    def __post_init__(self) -> None:
        for name in ("macs", "steps", "vector_beats"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{getattr(self, name)} is less than 1", field=name)

    def first_cycles(self, build: Build) -> int:
        """Before the maker gives the first row of a start."""
        book = CODES * (self.vector_beats - 1) if self.codebook else 0
        beats = math.ceil((book + self.vector_beats) / build.beats_per_cycle)
        return beats + _MAKER_STAGES + self.macs.bit_length() - 1
