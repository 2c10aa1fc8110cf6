"""What the search returns: schedules, and the frontier over TTFT and QPS per chip."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.problem import F64, Placement


@dataclass(frozen=True)
class StageChoice:
    """What one stage gets: chips or servers, and its batch size."""

    stage: str
    count: int
    batch: int


@dataclass(frozen=True)
class Schedule:
    """One point: a placement, what every stage gets, and what is expected of it.

    Attributes:
        choices: in pipeline order; stages of a group name the same chips.
        placement: groups of stage indices before decode.
        chips: in all, decode included; servers are not chips.
        ttft_s: mean over a burst of the largest batch before decode.
        qps: requests per second, the smallest rate of all groups.
    """

    choices: tuple[StageChoice, ...]
    placement: Placement
    chips: int
    servers: int | None
    ttft_s: float
    qps: float

    @property
    def qps_per_chip(self) -> float:
        return self.qps / self.chips

    @property
    def order(self) -> tuple[float, float, int, str]:
        """Sorts by TTFT, then by more QPS per chip, then by fewer chips; then it is fixed."""
        return (self.ttft_s, -self.qps_per_chip, self.chips, repr(self.choices))


class Frontier:
    """Schedules of which none is better in both TTFT and QPS per chip."""

    def __init__(self) -> None:
        self._points: list[Schedule] = []
        self._ttft: list[float] = []
        self._rate: list[float] = []

    @property
    def points(self) -> tuple[Schedule, ...]:
        """By ascending TTFT, and so by ascending QPS per chip."""
        return tuple(self._points)

    def beats(self, ttft_s: F64, qps_per_chip: F64) -> NDArray[np.bool_]:
        """Which candidates (lowest TTFT, highest QPS per chip) cannot add a point."""
        if not self._points:
            return np.zeros(np.shape(ttft_s), dtype=bool)
        at = np.searchsorted(np.array(self._ttft), ttft_s, side="right") - 1
        best = np.array(self._rate)[np.maximum(at, 0)]
        lost: NDArray[np.bool_] = (at >= 0) & (best >= qps_per_chip)
        return lost

    def offer(self, schedule: Schedule) -> bool:
        """Takes the schedule in unless an equal or better one is here."""
        ttft, rate = schedule.ttft_s, schedule.qps_per_chip
        at = bisect.bisect_right(self._ttft, ttft)
        if at and self._rate[at - 1] >= rate:
            twin = self._points[at - 1]
            if (twin.ttft_s, twin.qps_per_chip) != (ttft, rate) or twin.order <= schedule.order:
                return False
        first = bisect.bisect_left(self._ttft, ttft)
        last = first
        while last < len(self._points) and self._rate[last] <= rate:
            last += 1
        self._points[first:last] = [schedule]
        self._ttft[first:last] = [ttft]
        self._rate[first:last] = [rate]
        return True


def frontier_of(schedules: Iterable[Schedule]) -> Frontier:
    """The frontier of a set of schedules."""
    found = Frontier()
    for schedule in schedules:
        found.offer(schedule)
    return found
