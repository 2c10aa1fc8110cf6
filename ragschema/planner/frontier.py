"""Frontiers over TTFT and several rates at once: QPS per chip, per cost, per watt."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.problem import Problem
from ragschema.planner.schedule import TWINS, Frontier, Schedule
from ragschema.planner.stages import F64

#: Comparisons of a candidate with a point that are made at once; bounds memory.
_COMPARED = 1 << 22


def frontier_for(problem: Problem) -> Frontier:
    """An empty frontier over a problem's rates."""
    return _empty(len(problem.weights))


def frontier_of(schedules: Iterable[Schedule], rates: int = 1) -> Frontier:
    """The frontier of a set of schedules."""
    found = _empty(rates)
    for schedule in schedules:
        found.offer(schedule)
    return found


def _empty(rates: int) -> Frontier:
    return Frontier() if rates == 1 else WideFrontier(rates)


class WideFrontier(Frontier):
    """Schedules of which none is at least as good in TTFT and in every rate."""

    def __init__(self, rates: int) -> None:
        super().__init__()
        self._held: list[Schedule] = []
        # Rows of (TTFT, -rate, ...): smaller is better throughout.
        self._rows = np.zeros((0, 1 + rates))

    @property
    def points(self) -> tuple[Schedule, ...]:
        """By ascending TTFT, then by descending first rate."""
        order = np.lexsort(self._rows.T[::-1])
        return tuple(self._held[i] for i in order.tolist())

    def beats(self, ttft_s: F64, *values: F64) -> NDArray[np.bool_]:
        shape = np.shape(ttft_s)
        if not self._held:
            return np.zeros(shape, dtype=bool)
        columns = [np.reshape(ttft_s, -1), *(-np.reshape(v, -1) for v in values)]
        lost = np.ones(len(columns[0]), dtype=bool)
        for which in range(1, len(columns)):
            # Whoever is beaten is beaten in TTFT and each single rate, which is quick to tell.
            lost &= self._beaten_in(which, columns[0], columns[which])
        unsure = np.flatnonzero(lost)
        step = max(1, _COMPARED // max(1, len(self._rows)))
        for first in range(0, len(unsure), step):
            some = unsure[first : first + step]
            covers = np.ones((len(some), len(self._rows)), dtype=bool)
            for which, column in enumerate(columns):
                covers &= self._rows[:, which] <= column[some, None]
            lost[some] = covers.any(axis=1)
        return lost.reshape(shape)

    def _beaten_in(self, which: int, ttft_s: F64, negative: F64) -> NDArray[np.bool_]:
        order = np.argsort(self._rows[:, 0], kind="stable")
        best = np.minimum.accumulate(self._rows[order, which])
        at = np.searchsorted(self._rows[order, 0], ttft_s, side="right") - 1
        lost: NDArray[np.bool_] = (at >= 0) & (best[np.maximum(at, 0)] <= negative)
        return lost

    def offer(self, schedule: Schedule) -> bool:
        row = np.array([schedule.ttft_s, *(-value for value in schedule.values)])
        slack = TWINS * np.abs(self._rows)
        no_worse = (self._rows <= row + slack).all(axis=1)
        twins = no_worse & (self._rows >= row - slack).all(axis=1)
        if (no_worse & ~twins).any():
            return False
        if any(_rank(self._held[i]) <= _rank(schedule) for i in np.flatnonzero(twins)):
            return False
        stays = ~np.asarray((row <= self._rows + slack).all(axis=1))
        self._held = [held for held, keep in zip(self._held, stays, strict=True) if keep]
        self._held.append(schedule)
        self._rows = np.concatenate([self._rows[stays], row[None]])
        return True


def _rank(schedule: Schedule) -> tuple[int, str]:
    return schedule.chips, repr(schedule.choices)
