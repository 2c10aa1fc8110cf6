"""The exact search: every placement, allocation and batch size, few of them looked at.

For each burst size and placement, partial schedules ("labels") grow group by group. A
label holds the chips spent, the smallest rate so far and the finish time of every request
of the burst; the mean alone would not do, since later batches wait for their last
request. All steps are monotone, so a label goes when another one with the same chips and
servers is at least as fast for every request and as high in rate, or when what it can
still reach (``bounds``) is on or below the frontier already found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.bounds import bounds_of, decode_rates
from ragschema.planner.burst import pass_through
from ragschema.planner.dominance import undominated
from ragschema.planner.options import GroupOptions, group_options
from ragschema.planner.play import replayed
from ragschema.planner.problem import F64, Group, Placement, Problem, StageKind
from ragschema.planner.schedule import Frontier, Schedule, StageChoice

I64 = NDArray[np.int64]

#: Pairs of label and option that are looked at together; bounds memory.
_PAIRS = 1 << 20
#: Labels that a first, rough pass keeps per group; it only finds a good frontier early.
_SCOUTS = 24


@dataclass(frozen=True, eq=False)
class Labels:
    """Partial schedules after some groups.

    Attributes:
        chips: int64 [n], spent.
        servers: int64 [n], row of the server table, -1 while none was met.
        rate: float64 [n].
        finish: float64 [n, burst], not falling along the burst.
        parent, option: int64 [n], where each came from.
        before: the labels that parents index; None at the start.
    """

    chips: I64
    servers: I64
    rate: F64
    finish: F64
    parent: I64
    option: I64
    before: Labels | None

    def __len__(self) -> int:
        return len(self.chips)

    def take(self, keep: NDArray[np.intp] | NDArray[np.bool_]) -> Labels:
        return Labels(
            self.chips[keep], self.servers[keep], self.rate[keep], self.finish[keep],
            self.parent[keep], self.option[keep], self.before,
        )  # fmt: skip


def search(problem: Problem, progress: Callable[[float], None] | None = None) -> Frontier:
    """The frontier over TTFT and QPS per chip of all schedules of a problem.

    Args:
        progress: told the share of the work done, 0 .. 1.
    """
    frontier = Frontier()
    options = _OptionCache(problem)
    jobs = [(burst, placement) for burst in problem.bursts for placement in problem.placements]
    for at, limit in enumerate((_SCOUTS, None)):
        for done, (burst, placement) in enumerate(jobs):
            _Walk(problem, placement, burst, options, frontier).run(limit)
            if progress is not None:
                progress((at + (done + 1) / len(jobs)) / 2)
    return replayed(problem, frontier)


class _OptionCache:
    """Options are the same in every placement that has the group."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[tuple[Group, int, bool], GroupOptions] = {}

    def get(self, group: Group, burst: int, first: bool) -> GroupOptions:
        key = (group, burst, first)
        if key not in self._known:
            self._known[key] = group_options(self._problem, group, burst, first)
        return self._known[key]


class _Walk:
    """One placement and burst."""

    def __init__(
        self,
        problem: Problem,
        placement: Placement,
        burst: int,
        options: _OptionCache,
        frontier: Frontier,
    ) -> None:
        self._problem = problem
        self._placement = placement
        self._burst = burst
        self._frontier = frontier
        self._groups = [options.get(g, burst, i == 0) for i, g in enumerate(placement)]
        self._decode = decode_rates(problem, burst)
        self._bounds = bounds_of(problem, self._groups, self._decode)

    def run(self, limit: int | None) -> None:
        labels = _start(self._burst)
        if self._hopeless(labels):
            return
        for at, options in enumerate(self._groups):
            labels = self._extend(labels, options, at)
            labels = undominated_labels(labels, last=at == len(self._groups) - 1)
            if limit is not None and len(labels) > limit:
                labels = labels.take(_spread(labels, limit))
            if not len(labels):
                return
        self._close(labels)

    def _hopeless(self, labels: Labels) -> bool:
        return not self._promising(labels.chips, labels.rate, labels.finish.mean(axis=1), 0).any()

    def _promising(self, chips: I64, rate: F64, ttft_s: F64, at: int) -> NDArray[np.bool_]:
        """Which partial schedules before group ``at`` may still add to the frontier."""
        bounds = self._bounds
        best = np.minimum(bounds.per_chip[at][chips], rate / bounds.total_lo[at][chips])
        beaten = self._frontier.beats(ttft_s + bounds.latency_s[at][chips], best)
        keep: NDArray[np.bool_] = ~beaten & (best > 0)
        return keep

    def _extend(self, labels: Labels, options: GroupOptions, at: int) -> Labels:
        parts = []
        step = max(1, _PAIRS // max(1, len(options)))
        for first in range(0, len(labels), step):
            some = np.arange(first, min(first + step, len(labels)))
            parts += self._extend_some(labels, some, options, at)
        if not parts:
            return _none(self._burst, labels)
        chips, servers, rate, finish, parent, option = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return Labels(chips, servers, rate, finish, parent, option, labels)

    def _extend_some(
        self, labels: Labels, some: NDArray[np.intp], options: GroupOptions, at: int
    ) -> list[tuple[NDArray[Any], ...]]:
        finish = labels.finish[some]
        chips = labels.chips[some, None] + options.chips
        fits = chips <= self._problem.max_chips
        chips = np.where(fits, chips, 0)
        rate = np.minimum(labels.rate[some, None], options.rate)
        least_s = np.maximum(
            finish.mean(axis=1)[:, None] + options.service_s,
            finish[:, :1] + (options.service_s if options.delay else options.mean_s),
        )
        keep = fits & self._promising(chips, rate, least_s, at + 1)
        who, what = np.nonzero(keep)
        parts = []
        for shape, (w, o) in _by_shape(options, who, what):
            arrivals = finish[w]
            if options.delay:
                done = pass_through(arrivals, options.service_s[o])
            else:
                done = options.shape(shape).finish(arrivals, options.w[o])
            servers = np.maximum(labels.servers[some[w]], options.servers[o])
            columns = (chips[w, o], servers, rate[w, o], done, some[w], o)
            good = self._promising(columns[0], columns[2], done.mean(axis=1), at + 1)
            good &= self._servers_fit(columns[0], servers, at + 1)
            parts.append(tuple(column[good] for column in columns))
        return parts

    def _servers_fit(self, chips: I64, servers: I64, at: int) -> NDArray[np.bool_]:
        """The chips that these servers come with must leave room for what was spent."""
        ranges = self._problem.server_totals
        if not len(ranges):
            return np.ones(len(chips), dtype=bool)
        low, high = ranges[servers].T
        least = self._bounds.total_lo[at][chips]
        fits: NDArray[np.bool_] = (servers < 0) | ((least <= high) & (low <= high))
        return fits

    def _close(self, labels: Labels) -> None:
        """Gives every label its decode chips and offers what is new."""
        counts = np.flatnonzero(self._decode)
        total = labels.chips[:, None] + counts
        rate = np.minimum(labels.rate[:, None], self._decode[counts])
        ttft = np.broadcast_to(labels.finish.mean(axis=1)[:, None], total.shape)
        allowed = self._totals_allowed(labels, total)
        per_chip = np.where(allowed, rate / total, 0.0)
        good = allowed & ~self._frontier.beats(ttft, per_chip)
        found = np.argwhere(good)
        ttft_s, rates = ttft[good], per_chip[good]
        order = np.lexsort((total[good], -rates, ttft_s))
        # Only a higher rate than at any lower TTFT can stay.
        best = np.maximum.accumulate(rates[order])
        rising = np.ones(len(order), dtype=bool)
        rising[1:] = rates[order][1:] > best[:-1]
        for i, j in found[order[rising]].tolist():
            self._frontier.offer(self._schedule(labels, i, int(counts[j])))

    def _totals_allowed(self, labels: Labels, total: I64) -> NDArray[np.bool_]:
        ranges = self._problem.server_totals
        if len(ranges):
            low, high = ranges[labels.servers].T
        else:
            low = np.full(len(labels), self._problem.lowest_total)
            high = np.full(len(labels), self._problem.max_chips)
        allowed: NDArray[np.bool_] = (total >= low[:, None]) & (total <= high[:, None])
        return allowed

    def _schedule(self, labels: Labels, at: int, decode_chips: int) -> Schedule:
        ttft_s = float(labels.finish[at].mean())
        rate = min(float(labels.rate[at]), float(self._decode[decode_chips]))
        chips = int(labels.chips[at]) + decode_chips
        row = int(labels.servers[at])
        table = self._problem.server_stage
        servers = table.counts[row] if table is not None and row >= 0 else None
        picked: dict[int, StageChoice] = {}
        level: Labels | None = labels
        for options in reversed(self._groups):
            assert level is not None, "a level per group"
            o = int(level.option[at])
            for place, index in enumerate(options.group):
                stage = self._problem.stages[index]
                count = servers if stage.kind is StageKind.SERVER else int(options.chips[o])
                assert count is not None, "a server stage has servers"
                picked[index] = StageChoice(stage.name, count, int(options.batches[o, place]))
            at, level = int(level.parent[at]), level.before
        decode = self._decode_choice(decode_chips)
        choices = (*(picked[i] for i in sorted(picked)), decode)
        return Schedule(choices, self._placement, chips, servers, ttft_s, rate)

    def _decode_choice(self, chips: int) -> StageChoice:
        """The smallest batch that reaches the best rate."""
        decode = self._problem.decode
        batches = np.array(decode.batches)
        rates = np.where(
            batches >= self._burst, batches / decode.latency_s[decode.counts.index(chips)], 0.0
        )
        return StageChoice(decode.name, chips, int(batches[int(rates.argmax())]))


def undominated_labels(labels: Labels, last: bool) -> Labels:
    """Labels that no other with the same chips and servers makes useless.

    Args:
        last: nothing waits for single requests any more: the mean decides.
    """
    finish = labels.finish.mean(axis=1, keepdims=True) if last else labels.finish
    return labels.take(undominated(labels.chips, labels.servers, labels.rate, finish))


def _by_shape(
    options: GroupOptions, who: NDArray[np.intp], what: NDArray[np.intp]
) -> list[tuple[int, tuple[NDArray[np.intp], NDArray[np.intp]]]]:
    shape = options.shape_of[what]
    order = np.argsort(shape, kind="stable")
    borders = np.flatnonzero(np.diff(shape[order])) + 1
    return [
        (int(shape[part[0]]), (who[part], what[part]))
        for part in np.split(order, borders)
        if len(part)
    ]


def _spread(labels: Labels, limit: int) -> NDArray[np.intp]:
    """Some labels of low mean finish time and some of high rate."""
    by_time = np.argsort(labels.finish.mean(axis=1), kind="stable")[: limit // 2]
    by_rate = np.argsort(-labels.rate / np.maximum(labels.chips, 1), kind="stable")[: limit // 2]
    found: NDArray[np.intp] = np.unique(np.concatenate([by_time, by_rate]))
    return found


def _start(burst: int) -> Labels:
    """Nothing spent, every request there at time 0."""
    zero = np.zeros(1, dtype=np.int64)
    return Labels(zero, zero - 1, np.full(1, np.inf), np.zeros((1, burst)), zero, zero, None)


def _none(burst: int, before: Labels) -> Labels:
    empty = np.zeros(0, dtype=np.int64)
    return Labels(empty, empty, np.zeros(0), np.zeros((0, burst)), empty, empty, before)
