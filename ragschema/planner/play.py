"""Times one schedule by playing its burst, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.planner.frontier import frontier_of
from ragschema.planner.problem import Placement, Problem, StageKind
from ragschema.planner.schedule import Frontier, Schedule, StageChoice
from ragschema.planner.weighing import weights_of

_SERVER = StageKind.SERVER


@dataclass(frozen=True)
class Candidate:
    """One combination of everything a schedule fixes.

    Attributes:
        chips: per group of the placement; 0 for servers alone.
        batches: per stage before decode.
        kinds: of each group's chips; empty: kind 0.
        servers, server_kind: where they are not tied to chips.
    """

    placement: Placement
    chips: tuple[int, ...]
    batches: tuple[int, ...]
    decode_chips: int
    decode_batch: int
    kinds: tuple[int, ...] = ()
    decode_kind: int = 0
    servers: int | None = None
    server_kind: int = 0

    def spent(self, kinds: int) -> list[int]:
        """Chips by kind."""
        spent = [0] * kinds
        for kind, chips in zip(self.kinds or (0,) * len(self.chips), self.chips, strict=True):
            spent[kind] += chips
        spent[self.decode_kind] += self.decode_chips
        return spent


def play(problem: Problem, candidate: Candidate) -> Schedule | None:
    """Times one candidate; None when a table says it is not possible."""
    total = sum(candidate.chips) + candidate.decode_chips
    servers = servers_of(problem, candidate, total)
    times: list[float] = [0.0] * max(candidate.batches)
    rates: list[float] = []
    choices: dict[int, StageChoice] = {}
    kinds = candidate.kinds or (0,) * len(candidate.chips)
    for group, chips, kind in zip(candidate.placement, candidate.chips, kinds, strict=True):
        steps: list[tuple[int, float]] = []
        for index in group:
            stage = problem.stages[index]
            on_servers = stage.kind is StageKind.SERVER
            count, of_kind = (servers, candidate.server_kind) if on_servers else (chips, kind)
            if count is None:
                return None
            batch = candidate.batches[index]
            at = stage.row(count, of_kind), stage.batches.index(batch)
            latency_s = float(stage.latency_s[at])
            if latency_s == float("inf"):
                return None
            steps.append((batch, latency_s))
            choices[index] = StageChoice(stage.name, count, batch, of_kind)
        rates.append(1.0 / sum(latency_s / batch for batch, latency_s in steps))
        delay = len(group) == 1 and problem.stages[group[0]].delay
        times = [t + steps[0][1] for t in times] if delay else play_group(times, steps)
    decode = problem.decode
    row = decode.row(candidate.decode_chips, candidate.decode_kind)
    column = decode.batches.index(candidate.decode_batch)
    rates.append(candidate.decode_batch / float(decode.latency_s[row, column]))
    qps = float(problem.worth(np.array(min(rates))))
    if qps == 0.0:
        return None
    return Schedule(
        choices=(
            *(choices[i] for i in sorted(choices)),
            StageChoice(
                decode.name, candidate.decode_chips, candidate.decode_batch, candidate.decode_kind
            ),
        ),
        placement=candidate.placement,
        chips=total,
        servers=servers,
        ttft_s=sum(times) / len(times),
        qps=qps,
        weights=weights_of(
            problem,
            candidate.spent(len(problem.kinds)),
            None if servers is None else (candidate.server_kind, servers),
        ),
    )


def servers_of(problem: Problem, candidate: Candidate, total: int) -> int | None:
    """Servers that a candidate has, by the table's rows; None without any."""
    table = problem.server_stage
    if table is None:
        return None
    if problem.chips_per_server is None:
        return candidate.servers
    fitting = [c for c in table.counts if c <= total // problem.chips_per_server]
    return fitting[-1] if fitting else None


def play_group(arrivals: Sequence[float], steps: Sequence[tuple[int, float]]) -> list[float]:
    """Finish times of requests that go through a group's stages in turn.

    One batch at a time; of the stages with a full batch the last one works next. Which
    that is follows from counts alone: a batch that has not arrived is waited for.

    Args:
        arrivals: of each request, not falling.
        steps: (batch, latency) per stage.
    """
    done = [0] * len(steps)
    finish: list[float] = []
    now = 0.0
    while len(finish) < len(arrivals):
        for place in reversed(range(len(steps))):
            batch, latency_s = steps[place]
            ready = (done[place - 1] if place else len(arrivals)) - done[place]
            if ready >= batch:
                break
        else:
            raise AssertionError("a burst is a multiple of every batch")
        if place == 0:
            now = max(now, arrivals[done[0] + batch - 1])
        now += latency_s
        done[place] += batch
        if place == len(steps) - 1:
            finish += [now] * batch
    return finish


def replayed(problem: Problem, frontier: Frontier) -> Frontier:
    """The same schedules timed by playing them: equal ones become equal to the last bit."""
    played = (play(problem, candidate_of(problem, schedule)) for schedule in frontier.points)
    return frontier_of((s for s in played if s is not None), len(problem.weights))


def candidate_of(problem: Problem, schedule: Schedule) -> Candidate:
    """What a schedule fixes."""
    before, decode = schedule.choices[:-1], schedule.choices[-1]
    return Candidate(
        placement=schedule.placement,
        # A group starts with a server stage only where that stands alone.
        chips=tuple(
            0 if problem.stages[group[0]].kind is StageKind.SERVER else before[group[0]].count
            for group in schedule.placement
        ),
        batches=tuple(choice.batch for choice in before),
        decode_chips=decode.count,
        decode_batch=decode.batch,
        kinds=tuple(before[group[-1]].kind for group in schedule.placement),
        decode_kind=decode.kind,
        servers=schedule.servers,
        server_kind=next(
            (c.kind for c, s in zip(before, problem.stages, strict=False) if s.kind is _SERVER), 0
        ),
    )
