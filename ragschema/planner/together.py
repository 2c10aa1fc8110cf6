"""Decode on the chips of the stages before it, or on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.problem import Problem
from ragschema.planner.stages import F64, StageTable


@dataclass(frozen=True, eq=False)
class Beside:
    """What decode finds on its chips; n allocations.

    Attributes:
        row: int64 [n], of the decode table.
        shared_s: float64 [n], seconds per request that the chips work for other stages.
        room_bytes: float64 [n], left on each chip for decode's cache.
    """

    row: NDArray[np.int64]
    shared_s: F64
    room_bytes: F64

    def take(self, some: NDArray[np.int64]) -> Beside:
        """Some of the allocations."""
        return Beside(self.row[some], self.shared_s[some], self.room_bytes[some])


def answers_per_s(
    problem: Problem,
    decode: StageTable,
    beside: Beside,
    later_s: F64,
    burst: int,
    iterative_batch: int | None,
) -> F64:
    """Answers per second by decode batch: float64 [n, batches]; 0: not possible.

    D sequences advance while the chips do the others' work for D requests, so that an answer
    takes ``decode latency + D shared_s``.

    Args:
        later_s: float64 [n], of an iterative batch.
    """
    batches = np.array(decode.batches)
    decode_s = decode.latency_s[beside.row] + batches * beside.shared_s[:, None]
    answer_s = problem.answer_s(decode_s, batches, later_s[:, None], iterative_batch)
    fits = (batches >= burst) & (answer_s <= problem.max_answer_s)
    if decode.memory is not None:
        fits &= decode.memory.cache_bytes[beside.row] <= beside.room_bytes[:, None]
    rates: F64 = np.where(fits, batches / answer_s, 0.0)
    return rates


def own_chips(rows: NDArray[np.int64]) -> Beside:
    """Decode alone on its chips: its own latencies say what fits."""
    return Beside(rows, np.zeros(len(rows)), np.full(len(rows), np.inf))
