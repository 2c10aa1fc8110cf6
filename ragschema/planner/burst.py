"""How a burst of B requests moves through one group of stages.

Requests leave in order. A group works on one batch at a time, the last stage that has a
full batch first; the order of its batches then depends on the batch sizes alone, so
finish times are a max-plus expression of the arrivals and earlier arrivals never make a
later finish. With ``w_i = latency_i / batch_i`` and arrivals X,

    F[t] = sum_i w_i up(t + 1, M_i)
           + max over first-stage batches i started by then of
             (X[last request of i] - sum_j w_j down(i b_1, P_j))

where ``up(n, m)`` and ``down(n, m)`` round n to a multiple of m, M_i is the largest batch
of stages i and after, and P_j the largest of stages j and before: batch sizes divide each
other, so nested rounding is rounding to the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.stages import F64

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class GroupShape:
    """The part of a group's timing that its batch sizes fix.

    Attributes:
        up: float64 [burst, stages], ``up(t + 1, M_i)``.
        down: float64 [first-stage batches, stages], ``down(i b_1, P_j)``.
        last_of: [first-stage batches], index of each batch's last request.
        started: [burst], index of the last first-stage batch that request t waits for.
    """

    up: F64
    down: F64
    last_of: Index
    started: Index

    @staticmethod
    def of(batches: tuple[int, ...], burst: int) -> GroupShape:
        """Raises nothing: every batch divides the burst, which the problem checked."""
        sizes = np.array(batches)
        suffix = np.maximum.accumulate(sizes[::-1])[::-1]
        prefix = np.maximum.accumulate(sizes)
        leaves = np.arange(1, burst + 1)
        starts = np.arange(0, burst, batches[0])
        up = -(-leaves[:, None] // suffix) * suffix
        return GroupShape(
            up=up.astype(np.float64),
            down=(starts[:, None] // prefix * prefix).astype(np.float64),
            last_of=starts + batches[0] - 1,
            started=up[:, 0] // batches[0] - 1,
        )

    def finish(self, arrivals: F64, w: F64) -> F64:
        """Finish times.

        Args:
            arrivals: float64 [n, burst], not falling along the burst.
            w: float64 [n, stages], seconds per request.

        Returns:
            float64 [n, burst].
        """
        # [n, first-stage batches]: how far each arrival pushes the group back.
        pushed = arrivals[:, self.last_of] - w @ self.down.T
        np.maximum.accumulate(pushed, axis=1, out=pushed)
        done: F64 = w @ self.up.T
        done += pushed[:, self.started]
        return done


def pass_through(arrivals: F64, latency_s: F64) -> F64:
    """Finish times behind a pure delay: float64 [n, burst]."""
    return arrivals + latency_s[:, None]
