"""Retrievals while an answer is written: how they slow it down."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Iterative:
    """Retrievals while an answer is written, besides the one before it.

    A sequence that retrieves stalls until ``batch`` of them do so together, and until
    that batch is through all stages that have a ``later_s``. With D sequences in decode
    and T seconds per answer, R of such sequences come in T / D, so that one waits for
    (batch - 1) / 2 T / (R D) on average, R times. So

        T = (decode latency + R later latency) / (1 - (batch - 1) / (2 D)).

    Source: RAGO (arXiv 2503.14649) section 5.3 describes the effect; the closed form is
    ours, held against the simulator.

    Attributes:
        retrievals: R, per sequence, on average.
        batches: sizes that the search may choose from, ascending.
    """

    retrievals: float
    batches: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise(self.batches))
        if not self.retrievals > 0 or not self.batches or self.batches[0] < 1 or not rising:
            raise InvalidInput(
                f"{self.retrievals} retrievals in batches of {list(self.batches)}",
                field="iterative",
                hint="give more than none, and ascending batch sizes",
            )

    def answer_s(self, decode_s: F64, batch: F64, later_s: F64, together: int) -> F64:
        """Seconds of an answer from its first to its last token, stalls included.

        Args:
            decode_s: of the decode batch alone; ``batch`` its size.
            later_s: of an iterative batch in all stages that it goes through.
            together: the iterative batch; more than are in decode never come together: inf.
        """
        free = 1 - (together - 1) / (2 * batch)
        answer: F64 = np.where(
            together <= batch, (decode_s + self.retrievals * later_s) / free, np.inf
        )
        return answer
