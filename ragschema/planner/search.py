"""The exact search: every placement, allocation and batch size, few of them looked at.

For each burst size and placement, partial schedules ("labels") grow group by group. A
label holds the chips spent, the smallest rate so far and the finish time of every request
of the burst; the mean alone would not do, since later batches wait for their last
request. All steps are monotone, so a label goes when another one with the same chips and
servers is at least as fast for every request and as high in rate, or when what it can
still reach (``bounds``) is on or below the frontier already found.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ragschema.planner.frontier import frontier_for
from ragschema.planner.play import replayed
from ragschema.planner.problem import Placement, Problem
from ragschema.planner.schedule import Frontier, Schedule
from ragschema.planner.walk import OutOfTimeError, Shared, Walk

#: Labels that a first, rough pass keeps per group; it only finds a good frontier early.
_SCOUTS = 24

_Job = tuple[int, Placement, int | None]


@dataclass(frozen=True)
class Gap:
    """How far a frontier may be from the exact one; zeros: it is the exact one.

    Attributes:
        rate: no schedule has more than ``1 + rate`` times the highest first rate found.
        ttft: no schedule has less than ``1 - ttft`` times the lowest TTFT found.
        unfinished: share of the search that was left out.
    """

    rate: float = 0.0
    ttft: float = 0.0
    unfinished: float = 0.0


def search(
    problem: Problem,
    progress: Callable[[float], None] | None = None,
    known: Sequence[Schedule] = (),
) -> Frontier:
    """The frontier over TTFT and each rate of all schedules of a problem.

    Args:
        progress: told the share of the work done, 0 .. 1.
        known: schedules of this problem to begin with; they only save time.
    """
    return _Search(problem, progress, None, known).run()[0]


def search_within(
    problem: Problem,
    limit_s: float,
    progress: Callable[[float], None] | None = None,
    known: Sequence[Schedule] = (),
) -> tuple[Frontier, Gap]:
    """The best frontier that is found in so many seconds, and how far it may be off."""
    return _Search(problem, progress, time.monotonic() + limit_s, known).run()


class _Search:
    """One search; with a deadline it ends early."""

    def __init__(
        self,
        problem: Problem,
        progress: Callable[[float], None] | None,
        deadline_s: float | None,
        known: Sequence[Schedule],
    ) -> None:
        self._problem = problem
        self._progress = progress
        self._deadline_s = deadline_s
        self._frontier = frontier_for(problem)
        for schedule in known:
            self._frontier.offer(schedule)
        self._shared = Shared(problem)

    def run(self) -> tuple[Frontier, Gap]:
        problem = self._problem
        jobs = list(
            itertools.product(problem.bursts, problem.placements, problem.iterative_batches)
        )
        left: Sequence[_Job] = jobs
        for at, limit in enumerate((_SCOUTS, None)):
            left = self._pass(jobs, limit, at / 2)
            if left:
                # What the rough pass leaves out the exact one has not looked at either.
                left = jobs if limit is not None else left
                break
        gap = self._gap(left, len(jobs))
        return replayed(self._problem, self._frontier), gap

    def _pass(self, jobs: Sequence[_Job], limit: int | None, before: float) -> Sequence[_Job]:
        """Walks all jobs; returns those that the deadline has left undone."""
        for done, job in enumerate(jobs):
            try:
                self._walk(job).run(limit)
            except OutOfTimeError:
                return jobs[done:]
            if self._progress is not None:
                self._progress(before + (done + 1) / len(jobs) / 2)
        return ()

    def _walk(self, job: _Job) -> Walk:
        burst, placement, again = job
        # However short the time, something is found where anything can be.
        deadline_s = self._deadline_s if self._frontier.points else None
        return Walk(
            self._problem, placement, burst, self._shared, self._frontier, again, deadline_s
        )

    def _gap(self, left: Sequence[_Job], jobs: int) -> Gap:
        bounds = [best for job in left if (best := self._walk(job).at_best()) is not None]
        if not bounds:
            return Gap()
        share = len(left) / jobs
        points = self._frontier.points
        if not points:
            return Gap(math.inf, 1.0, share)
        lowest, highest = min(p.ttft_s for p in points), max(p.value for p in points)
        return Gap(
            max(0.0, max(rate for _, rate in bounds) / highest - 1),
            max(0.0, 1 - min(ttft_s for ttft_s, _ in bounds) / lowest),
            share,
        )
