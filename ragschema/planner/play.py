"""Times one schedule by playing its burst, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.planner.problem import Placement, Problem, StageKind
from ragschema.planner.schedule import Frontier, Schedule, StageChoice, frontier_of


@dataclass(frozen=True)
class Candidate:
    """One combination of everything a schedule fixes.

    Attributes:
        chips: per group of the placement; 0 for servers alone.
        batches: per stage before decode.
    """

    placement: Placement
    chips: tuple[int, ...]
    batches: tuple[int, ...]
    decode_chips: int
    decode_batch: int


def play(problem: Problem, candidate: Candidate) -> Schedule | None:
    """Times one candidate; None when a table says it is not possible."""
    total = sum(candidate.chips) + candidate.decode_chips
    servers = servers_of(problem, total)
    times: list[float] = [0.0] * max(candidate.batches)
    rates: list[float] = []
    choices: dict[int, StageChoice] = {}
    for group, chips in zip(candidate.placement, candidate.chips, strict=True):
        steps: list[tuple[int, float]] = []
        for index in group:
            stage = problem.stages[index]
            count = servers if stage.kind is StageKind.SERVER else chips
            if count is None:
                return None
            batch = candidate.batches[index]
            latency_s = float(
                stage.latency_s[stage.counts.index(count), stage.batches.index(batch)]
            )
            if latency_s == float("inf"):
                return None
            steps.append((batch, latency_s))
            choices[index] = StageChoice(stage.name, count, batch)
        rates.append(1.0 / sum(latency_s / batch for batch, latency_s in steps))
        delay = len(group) == 1 and problem.stages[group[0]].delay
        times = [t + steps[0][1] for t in times] if delay else play_group(times, steps)
    decode = problem.decode
    row, column = (
        decode.counts.index(candidate.decode_chips),
        decode.batches.index(candidate.decode_batch),
    )
    rates.append(candidate.decode_batch / float(decode.latency_s[row, column]))
    qps = float(problem.worth(np.array(min(rates))))
    if qps == 0.0:
        return None
    return Schedule(
        choices=(
            *(choices[i] for i in sorted(choices)),
            StageChoice(decode.name, candidate.decode_chips, candidate.decode_batch),
        ),
        placement=candidate.placement,
        chips=total,
        servers=servers,
        ttft_s=sum(times) / len(times),
        qps=qps,
    )


def servers_of(problem: Problem, total: int) -> int | None:
    """Servers that come with so many chips, by the table's rows; None without any."""
    table = problem.server_stage
    if table is None:
        return None
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
    return frontier_of(schedule for schedule in played if schedule is not None)


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
    )
