"""One placement and burst of the search: labels that grow group by group, then decode."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.planner.bounds import bounds_of, decode_rates, no_decode_chips
from ragschema.planner.burst import pass_through
from ragschema.planner.labels import (
    Kinds,
    Labels,
    by_shape,
    none,
    spread,
    start,
    undominated_labels,
)
from ragschema.planner.options import GroupOptions, group_options
from ragschema.planner.problem import Group, Placement, Problem
from ragschema.planner.schedule import Frontier, Schedule, StageChoice
from ragschema.planner.stages import F64, I64, StageKind
from ragschema.planner.together import answers_per_s, own_chips
from ragschema.planner.weighing import Weighing, weights_of

#: Pairs of label and option that are looked at together; bounds memory.
_PAIRS = 1 << 20


class OutOfTimeError(Exception):
    """The deadline of a search has passed; caught inside the planner."""


class Shared:
    """What the walks of one search have in common.

    Options are the same in every placement that has the group.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.kinds = Kinds(problem)
        self.weighings = [Weighing(problem, weights) for weights in problem.weights]
        self._known: dict[tuple[Group, int, bool, int | None], GroupOptions] = {}

    def options(
        self, group: Group, burst: int, first: bool, iterative_batch: int | None
    ) -> GroupOptions:
        key = (group, burst, first, iterative_batch)
        if key not in self._known:
            self._known[key] = group_options(self._problem, *key)
        return self._known[key]


class Walk:
    """One placement, burst and iterative batch.

    Args:
        deadline_s: on the monotonic clock, when ``run`` gives up; None: never.
    """

    def __init__(
        self,
        problem: Problem,
        placement: Placement,
        burst: int,
        shared: Shared,
        frontier: Frontier,
        iterative_batch: int | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self._problem = problem
        self._placement = placement
        self._burst = burst
        self._deadline_s = deadline_s
        self._frontier = frontier
        self._again = iterative_batch
        self._groups = [
            shared.options(g, burst, i == 0, iterative_batch) for i, g in enumerate(placement)
        ]
        self._kinds = shared.kinds
        self._shared = problem.shares(placement)
        self._decode = (
            no_decode_chips(problem)
            if self._shared
            else decode_rates(problem, burst, iterative_batch)
        )
        self._weighings = shared.weighings
        self._bounds = bounds_of(problem, self._groups, self._decode, self._weighings)

    def run(self, limit: int | None) -> None:
        """Offers the frontier every schedule that may be on it.

        Args:
            limit: labels that are kept per group, for a rough pass; None: all.

        Raises:
            OutOfTimeError: the deadline has passed.
        """
        labels = start(self._burst)
        if self._hopeless(labels):
            return
        for at, options in enumerate(self._groups):
            labels = self._extend(labels, options, at)
            labels = undominated_labels(labels, last=at == len(self._groups) - 1)
            if limit is not None and len(labels) > limit:
                labels = labels.take(spread(labels, limit))
            if not len(labels):
                return
        self._close(labels)

    def at_best(self) -> tuple[float, float] | None:
        """Lowest TTFT and highest first rate that this walk may find; None: it finds nothing."""
        if self._hopeless(start(self._burst)):
            return None
        return float(self._bounds.latency_s[0][0]), float(self._bounds.value[0][0][0])

    def _hopeless(self, labels: Labels) -> bool:
        columns = labels.chips, labels.spent, labels.servers, labels.rate
        return not self._promising(*columns, labels.finish.mean(axis=1), 0).any()

    def _promising(
        self, chips: I64, spent: I64, servers: I64, rate: F64, ttft_s: F64, at: int
    ) -> NDArray[np.bool_]:
        """Which partial schedules before group ``at`` may still add to the frontier."""
        values = [
            self._best_value(which, chips, spent, servers, rate, at)
            for which in range(len(self._weighings))
        ]
        beaten = self._frontier.beats(ttft_s + self._bounds.latency_s[at][chips], *values)
        keep: NDArray[np.bool_] = ~beaten & (values[0] > 0)
        return keep

    def _best_value(
        self, which: int, chips: I64, spent: I64, servers: I64, rate: F64, at: int
    ) -> F64:
        """The highest rate per weight that partial schedules may still reach."""
        bounds, weighing = self._bounds, self._weighings[which]
        lowest = bounds.weight_lo[which][at][chips]
        if not weighing.plain:
            # What is spent, and the cheapest of what must still come.
            more = bounds.total_lo[at][chips] - chips
            least = self._kinds.weight(spent, weighing.of_chips) + more * min(weighing.of_chips)
            lowest = np.maximum(lowest, least + weighing.servers(servers, chips + more))
        best: F64 = np.minimum(bounds.value[which][at][chips], rate / lowest)
        return best

    def _extend(self, labels: Labels, options: GroupOptions, at: int) -> Labels:
        parts = []
        order = np.argsort(labels.chips, kind="stable")
        room = self._problem.max_chips - self._bounds.least[at + 1] - labels.chips[order]
        fitting = np.searchsorted(options.chips, room, side="right")
        first = 0
        while first < len(order) and fitting[first]:
            if self._deadline_s is not None and time.monotonic() > self._deadline_s:
                raise OutOfTimeError
            # Labels with more chips have room for fewer options, so this first one has most.
            few = int(fitting[first])
            last = first + max(1, _PAIRS // few)
            parts += self._extend_some(labels, order[first:last], few, options, at)
            first = last
        if not parts:
            return none(self._burst, labels)
        chips, spent, servers, rate, finish, later_s, parent, option = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return Labels(chips, spent, servers, rate, finish, later_s, parent, option, labels)

    def _extend_some(
        self,
        labels: Labels,
        some: NDArray[np.intp],
        few: int,
        options: GroupOptions,
        at: int,
    ) -> list[tuple[NDArray[Any], ...]]:
        """Some labels with the first few options each: columns of new labels."""
        who, what = self._worth_a_look(labels, some, few, options, at)
        finish, mine = labels.finish[some], some[who]
        chips = labels.chips[mine] + options.chips[what]
        added = self._kinds.packed(options.kind[what], options.chips[what])
        spent = labels.spent[mine] + added
        servers = np.maximum(labels.servers[mine], options.servers[what])
        rate = np.minimum(labels.rate[mine], options.rate[what])
        service_s = options.service_s[what]
        least_s = np.maximum(
            finish.mean(axis=1)[who] + service_s,
            finish[who, 0] + (service_s if options.delay else options.mean_s[what]),
        )
        keep = np.flatnonzero(self._promising(chips, spent, servers, rate, least_s, at + 1))
        state = chips[keep], spent[keep], servers[keep], rate[keep]
        return self._finished(labels, some, finish, state, who[keep], what[keep], options, at)

    def _finished(
        self,
        labels: Labels,
        some: NDArray[np.intp],
        finish: F64,
        state: tuple[I64, I64, I64, F64],
        who: NDArray[np.intp],
        what: NDArray[np.intp],
        options: GroupOptions,
        at: int,
    ) -> list[tuple[NDArray[Any], ...]]:
        """Pairs of label and option with their finish times, as far as they are promising."""
        parts = []
        for shape, of in by_shape(options, what):
            w, o = who[of], what[of]
            if options.delay:
                done = pass_through(finish[w], options.service_s[o])
            else:
                done = options.shape(shape).finish(finish[w], options.w[o])
            chips, spent, servers, rate = state[0][of], state[1][of], state[2][of], state[3][of]
            later_s = labels.later_s[some[w]] + options.later_s[o]
            if options.beside is not None and self._again is not None:
                # Stalls in all groups are known only now.
                answers = self._shared_answers(options, o, later_s).max(axis=1)
                rate = np.minimum(rate, self._problem.worth(answers))
            good = self._promising(chips, spent, servers, rate, done.mean(axis=1), at + 1)
            good &= self._servers_fit(chips, servers, at + 1)
            columns = (chips, spent, servers, rate, done, later_s, some[w], o)
            parts.append(tuple(column[good] for column in columns))
        return parts

    def _worth_a_look(
        self,
        labels: Labels,
        some: NDArray[np.intp],
        few: int,
        options: GroupOptions,
        at: int,
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pairs that a quick test leaves: places in ``some``, and options.

        A pair is out when its chips do not fit, or when the frontier has as high a rate at
        the least TTFT that the label can reach with any option.
        """
        more = options.chips[:few]
        chips = labels.chips[some, None] + more
        added = self._kinds.packed(options.kind[:few], more)
        spent = chips if added is more else labels.spent[some, None] + added
        keep = (chips <= self._problem.max_chips) & self._kinds.fits(spent)
        first = self._weighings[0]
        if len(self._weighings) == 1 and first.plain:
            inside = np.minimum(chips, self._problem.max_chips)
            rate = np.minimum(labels.rate[some, None], options.rate[:few])
            # Where the weight follows from the chips, servers do not matter to it.
            best = self._best_value(0, inside, spent, labels.servers[some, None], rate, at + 1)
            least_s = self._bounds.latency_s[at][labels.chips[some]]
            known = self._frontier.best_by(labels.finish[some].mean(axis=1) + least_s)
            keep &= best > known[:, None]
        who, what = np.nonzero(keep)
        return who, what

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
        if self._shared:
            self._close_shared(labels)
            return
        for kind, decode in enumerate(self._decode):
            self._close_kind(labels, kind, decode)

    def _close_kind(self, labels: Labels, kind: int, decode: F64) -> None:
        counts = np.flatnonzero(decode)
        if not len(counts):
            return
        total = labels.chips[:, None] + counts
        rate = np.minimum(labels.rate[:, None], self._decoded(labels, kind, counts, decode))
        spent = labels.spent[:, None] + self._kinds.packed(np.array(kind), counts)
        for i, j in self._new(labels, total, spent, rate):
            self._offer(labels, i, kind, int(counts[j]))

    def _close_shared(self, labels: Labels) -> None:
        """The same where decode is on the chips of the last group."""
        columns = labels.chips[:, None], labels.spent[:, None], labels.rate[:, None]
        for i, _ in self._new(labels, *columns):
            kind, chips = self._groups[-1].row(int(labels.option[i]))
            self._offer(labels, i, kind, chips)

    def _new(self, labels: Labels, total: I64, spent: I64, rate: F64) -> list[list[int]]:
        """Whole schedules [labels, decode counts] that may add to the frontier, best first."""
        ttft = np.broadcast_to(labels.finish.mean(axis=1)[:, None], total.shape)
        allowed = self._totals_allowed(labels, total) & self._kinds.fits(spent)
        inside = np.where(allowed, total, 0)
        rows = labels.servers[:, None]
        values = [
            np.where(
                allowed,
                rate / (self._kinds.weight(spent, one.of_chips) + one.servers(rows, inside)),
                0.0,
            )
            for one in self._weighings
        ]
        good = (values[0] > 0) & ~self._frontier.beats(ttft, *values)
        found = np.argwhere(good)
        order = np.lexsort((total[good], *(-v[good] for v in reversed(values)), ttft[good]))
        if len(values) == 1:
            order = order[_rising(values[0][good][order])]
        new: list[list[int]] = found[order].tolist()
        return new

    def _decoded(self, labels: Labels, kind: int, counts: I64, decode: F64) -> F64:
        """Best decode rate of each label with each count: float64 [n or 1, counts]."""
        if self._again is None:
            return decode[None, counts]
        rates = [self._answers(kind, int(count), labels.later_s).max(axis=1) for count in counts]
        return self._problem.worth(np.stack(rates, axis=1))

    def _answers(self, kind: int, chips: int, later_s: F64) -> F64:
        """Answers per second by decode batch: float64 [n, batches]; 0: not possible."""
        table = self._problem.decode
        rows = np.full(len(later_s), table.row(chips, kind))
        return answers_per_s(
            self._problem, table, own_chips(rows), later_s, self._burst, self._again
        )

    def _shared_answers(self, options: GroupOptions, some: I64, later_s: F64) -> F64:
        """The same on the chips of the last group, for some of its options."""
        assert options.decode is not None, "decode is in the last group"
        assert options.beside is not None, "decode is in the last group"
        beside = options.beside.take(some)
        return answers_per_s(
            self._problem, options.decode, beside, later_s, self._burst, self._again
        )

    def _totals_allowed(self, labels: Labels, total: I64) -> NDArray[np.bool_]:
        ranges = self._problem.server_totals
        if len(ranges):
            low, high = ranges[labels.servers].T
        else:
            low = np.full(len(labels), self._problem.lowest_total)
            high = np.full(len(labels), self._problem.max_chips)
        allowed: NDArray[np.bool_] = (total >= low[:, None]) & (total <= high[:, None])
        return allowed

    def _offer(self, labels: Labels, at: int, kind: int, decode_chips: int) -> None:
        self._frontier.offer(self._schedule(labels, at, kind, decode_chips))

    def _schedule(self, labels: Labels, at: int, kind: int, decode_chips: int) -> Schedule:
        ttft_s = float(labels.finish[at].mean())
        one = labels.take(np.array([at]))
        if self._shared:
            answers = self._shared_answers(self._groups[-1], one.option, one.later_s)[0]
        else:
            answers = self._answers(kind, decode_chips, one.later_s)[0]
        decode_rate = float(self._problem.worth(np.asarray(answers.max())))
        rate = min(float(labels.rate[at]), decode_rate)
        spent = self._kinds.counts(int(labels.spent[at]))
        more = 0 if self._shared else decode_chips
        spent[kind] += more
        chips = int(labels.chips[at]) + more
        row = int(labels.servers[at])
        table = self._problem.server_stage
        server = table.rows[row] if table is not None and row >= 0 else None
        picked: dict[int, StageChoice] = {}
        level: Labels | None = labels
        for options in reversed(self._groups):
            assert level is not None, "a level per group"
            o = int(level.option[at])
            for place, index in enumerate(options.group):
                stage = self._problem.stages[index]
                given = server if stage.kind is StageKind.SERVER else options.row(o)
                assert given is not None, "a server stage has servers"
                of_kind, count = given
                batch = int(options.batches[o, place])
                picked[index] = StageChoice(stage.name, count, batch, of_kind)
            at, level = int(level.parent[at]), level.before
        # The smallest decode batch that reaches the best rate.
        decode_batch = self._problem.decode.batches[int(answers.argmax())]
        last = StageChoice(self._problem.decode.name, decode_chips, decode_batch, kind)
        choices = (*(picked[i] for i in sorted(picked)), last)
        weights = weights_of(self._problem, spent, server)
        servers = None if server is None else server[1]
        return Schedule(
            choices, self._placement, chips, servers, ttft_s, rate, weights, self._again
        )


def _rising(values: F64) -> NDArray[np.bool_]:
    """Of values by ascending TTFT those above all before: only they can stay."""
    rising = np.ones(len(values), dtype=bool)
    rising[1:] = values[1:] > np.maximum.accumulate(values)[:-1]
    return rising
