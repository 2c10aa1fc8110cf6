"""Recall of many settings, and queries per second of the good ones, taken in turn.

A shared machine changes its speed by tens of percent within a minute, so nothing
is timed alone: every round runs each contestant once on the same queries, in a
new order, and what is compared are rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.common import note
from bench.datasets import recall
from bench.retrieval_peers import Contestant, Search
from bench.retrieval_plan import Plan, Setting
from ragschema.types import F32, I64

#: A setting is timed again unless another one of its kind is better in recall and
#: faster by more than this, which is what one pass alone may be wrong by.
_SLACK = 1.2


@dataclass(eq=False)
class Point:
    """One contestant with one setting and batch size, and what was measured of it.

    Attributes:
        recall: mean over all queries.
        found: int64 [queries, k].
        trial_qps: of the pass that measured the recall.
        rounds_qps: queries per second of each timed round.
    """

    contestant: Contestant
    setting: Setting
    batch: int
    recall: float = 0.0
    found: I64 = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    trial_qps: float = 0.0
    rounds_qps: list[float] = field(default_factory=list)

    @property
    def qps(self) -> float:
        return statistics.median(self.rounds_qps) if self.rounds_qps else self.trial_qps

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "setting": str(self.setting),
            "batch": self.batch,
            "recall": round(self.recall, 4),
            "qps": round(self.qps),
        }


@dataclass(frozen=True, eq=False)
class Course:
    """What everybody runs: queries float32 [q, dim] and their true rows int64 [q, k]."""

    plan: Plan
    queries: F32
    truth: I64

    def trial(self, point: Point) -> Point:
        """Measures the recall, over all queries."""
        search = point.contestant.at(point.setting)
        _in_batches(search, self.queries[: 2 * point.batch], point.batch)  # warms
        started_s = time.perf_counter()
        point.found = np.vstack(_in_batches(search, self.queries, point.batch))
        point.trial_qps = len(self.queries) / (time.perf_counter() - started_s)
        point.recall = recall(point.found, self.truth)
        return point

    def race(self, points: Sequence[Point]) -> None:
        """Times all points, round by round."""
        rng = np.random.default_rng(self.plan.seed)
        for number in range(self.plan.rounds):
            note(f"round {number + 1} of {self.plan.rounds}: {len(points)} settings")
            queries = self._window(number)
            for at in rng.permutation(len(points)):
                points[at].rounds_qps.append(self._pass(points[at], queries))

    def _window(self, number: int) -> F32:
        start = number * self.plan.window % len(self.queries)
        return self.queries[start : start + self.plan.window]

    def _pass(self, point: Point, queries: F32) -> float:
        search = point.contestant.at(point.setting)
        _in_batches(search, queries[: point.batch], point.batch)  # calls its code into cache
        done, spent_s = 0, 0.0
        while done == 0 or spent_s < self.plan.pass_s:
            started_s = time.perf_counter()
            _in_batches(search, queries, point.batch)
            spent_s += time.perf_counter() - started_s
            done += len(queries)
        return done / spent_s


def _in_batches(search: Search, queries: F32, batch: int) -> list[I64]:
    return [search(queries[at : at + batch]) for at in range(0, len(queries), batch)]


def promising(points: Iterable[Point]) -> list[Point]:
    """Settings worth timing: none other has more recall and much more speed."""
    kept: list[Point] = []
    fastest = 0.0
    for point in sorted(points, key=lambda p: (-p.recall, -p.trial_qps)):
        if point.trial_qps * _SLACK > fastest:
            kept.append(point)
        fastest = max(fastest, point.trial_qps)
    return kept


def frontier(points: Iterable[Point]) -> list[Point]:
    """By falling recall, those that are faster than every one of more recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.qps)):
        if not kept or point.qps > kept[-1].qps:
            kept.append(point)
    return kept


def best(points: Iterable[Point], wanted_recall: float) -> Point | None:
    """The fastest that reaches the recall."""
    good = [p for p in points if p.recall >= wanted_recall]
    return max(good, key=lambda p: p.qps, default=None)


def ratio(ours: Point, theirs: Point) -> float:
    """Median of the rounds' ratios: a machine that changes its speed moves both."""
    pairs = zip(ours.rounds_qps, theirs.rounds_qps, strict=True)
    return round(statistics.median(a / b for a, b in pairs), 2)
