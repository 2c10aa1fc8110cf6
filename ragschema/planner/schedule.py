"""What the search returns: schedules, and the frontier over TTFT and QPS per weight."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.problem import Placement
from ragschema.planner.stages import F64

#: Relative difference below which two figures are the same.
TWINS = 1e-12


@dataclass(frozen=True)
class StageChoice:
    """What one stage gets: chips of a kind or servers, and its batch size."""

    stage: str
    count: int
    batch: int
    kind: int = 0


@dataclass(frozen=True)
class Schedule:
    """One point: a placement, what every stage gets, and what is expected of it.

    Attributes:
        choices: in pipeline order; stages of a group name the same chips.
        placement: groups of stage indices before decode; the last one holds decode too where
            it shares their chips.
        chips: in all, decode included; servers are not chips.
        ttft_s: mean over a burst of the largest batch before decode.
        qps: requests per second, the smallest rate of all groups.
        weights: what chips and servers count in each rate of the frontier; empty: one
            rate, in which only the number of chips counts.
        iterative_batch: sequences that retrieve together during decode; None: none do.
    """

    choices: tuple[StageChoice, ...]
    placement: Placement
    chips: int
    servers: int | None
    ttft_s: float
    qps: float
    weights: tuple[float, ...] = ()
    iterative_batch: int | None = None

    @property
    def groups(self) -> Placement:
        """All groups, with decode in its own or in the last one."""
        decode = len(self.choices) - 1
        shared = self.placement[-1][-1] == decode
        return self.placement if shared else (*self.placement, (decode,))

    @property
    def qps_per_chip(self) -> float:
        return self.qps / self.chips

    @property
    def values(self) -> tuple[float, ...]:
        """QPS over each weight, the rates of the frontier."""
        return tuple(self.qps / weight for weight in self.weights or (self.chips,))

    @property
    def value(self) -> float:
        """The first of them."""
        return self.values[0]


class Frontier:
    """Schedules of which none is better in both TTFT and QPS per weight.

    With weight 1 per chip that is QPS per chip; with prices it is QPS per cost.

    Sums in another order differ in their last bits, so values within ``TWINS`` of each
    other count as equal; of equals the one with fewer chips stays.
    """

    def __init__(self) -> None:
        self._points: list[Schedule] = []
        self._ttft: list[float] = []
        self._rate: list[float] = []

    @property
    def points(self) -> tuple[Schedule, ...]:
        """By ascending TTFT, and so by ascending value."""
        return tuple(self._points)

    def best_by(self, ttft_s: F64) -> F64:
        """The highest first rate of points with at most these TTFTs; 0: there are none."""
        if not self._points:
            return np.zeros(np.shape(ttft_s))
        at = np.searchsorted(np.array(self._ttft), ttft_s, side="right") - 1
        best: F64 = np.where(at >= 0, np.array(self._rate)[np.maximum(at, 0)], 0.0)
        return best

    def beats(self, ttft_s: F64, *values: F64) -> NDArray[np.bool_]:
        """Which candidates (lowest TTFT, highest values, one per rate) cannot add a point."""
        if not self._points:
            return np.zeros(np.shape(ttft_s), dtype=bool)
        (value,) = values
        at = np.searchsorted(np.array(self._ttft), ttft_s, side="right") - 1
        best = np.array(self._rate)[np.maximum(at, 0)]
        lost: NDArray[np.bool_] = (at >= 0) & (best >= value)
        return lost

    def offer(self, schedule: Schedule) -> bool:
        """Takes the schedule in unless an equal or better one is here."""
        ttft, rate = schedule.ttft_s, schedule.value
        at = bisect.bisect_right(self._ttft, ttft * (1 + TWINS))
        if at and self._rate[at - 1] * (1 + TWINS) >= rate and not self._twin(at - 1, schedule):
            return False
        first = bisect.bisect_left(self._ttft, ttft * (1 - TWINS))
        last = first
        while last < len(self._points) and self._rate[last] <= rate * (1 + TWINS):
            last += 1
        self._points[first:last] = [schedule]
        self._ttft[first:last] = [ttft]
        self._rate[first:last] = [rate]
        return True

    def _twin(self, at: int, schedule: Schedule) -> bool:
        """Whether the schedule equals a point in both figures and comes first."""
        known = self._points[at]
        alike = (
            abs(known.ttft_s - schedule.ttft_s) <= TWINS * known.ttft_s
            and abs(self._rate[at] - schedule.value) <= TWINS * self._rate[at]
        )
        return alike and (schedule.chips, repr(schedule.choices)) < (
            known.chips,
            repr(known.choices),
        )
