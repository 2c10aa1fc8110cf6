"""Times one schedule by playing its burst, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.planner.frontier import frontier_of
from ragschema.planner.memory import cache_bytes, room_bytes
from ragschema.planner.problem import Group, Placement, Problem
from ragschema.planner.schedule import Frontier, Schedule, StageChoice
from ragschema.planner.stages import StageKind
from ragschema.planner.weighing import weights_of

_SERVER = StageKind.SERVER


@dataclass(frozen=True)
class Candidate:
    """One combination of everything a schedule fixes.

    Attributes:
        chips: per group of the placement; 0 for servers alone. Where decode is in the last
            group, these are decode's too.
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
    iterative_batch: int | None = None

    def spent(self, kinds: int) -> list[int]:
        """Chips by kind."""
        spent = [0] * kinds
        for kind, chips in zip(self.kinds or (0,) * len(self.chips), self.chips, strict=True):
            spent[kind] += chips
        if len(self.batches) not in self.placement[-1]:
            spent[self.decode_kind] += self.decode_chips
        return spent


def play(problem: Problem, candidate: Candidate) -> Schedule | None:
    """Times one candidate; None when a table says it is not possible."""
    total = sum(candidate.spent(len(problem.kinds)))
    servers = servers_of(problem, candidate, total)
    stages = problem.stages_in(candidate.placement)
    times: list[float] = [0.0] * max(candidate.batches)
    rates: list[float] = []
    choices: dict[int, StageChoice] = {}
    later_s = shared_s = 0.0
    kinds = candidate.kinds or (0,) * len(candidate.chips)
    for group, chips, kind in zip(candidate.placement, candidate.chips, kinds, strict=True):
        steps: list[tuple[int, float]] = []
        group_later_s = 0.0
        for index in group:
            stage = stages[index]
            if stage.kind is StageKind.DECODE:
                continue
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
            group_later_s += problem.later_of(stage, at[0], candidate.iterative_batch)
        per_request_s = sum(latency_s / batch for batch, latency_s in steps)
        if problem.iterative is not None and candidate.iterative_batch is not None:
            again = problem.iterative.retrievals / candidate.iterative_batch
            per_request_s += again * group_later_s
        later_s += group_later_s
        if len(stages) - 1 in group:
            shared_s = per_request_s
        if not _fits(problem, candidate, group, (kind, chips)):
            return None
        rates.append(1.0 / per_request_s)
        delay = len(group) == 1 and stages[group[0]].delay
        times = [t + steps[0][1] for t in times] if delay else play_group(times, steps)
    rates.append(_decode_rate(problem, candidate, later_s, shared_s))
    qps = float(problem.worth(np.array(min(rates))))
    if qps == 0.0:
        return None
    last = (candidate.decode_chips, candidate.decode_batch, candidate.decode_kind)
    return Schedule(
        choices=(*(choices[i] for i in sorted(choices)), StageChoice(stages[-1].name, *last)),
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
        iterative_batch=candidate.iterative_batch,
    )


def _fits(problem: Problem, candidate: Candidate, group: Group, row: tuple[int, int]) -> bool:
    """Whether the stages of a group fit its chips together."""
    batches = (*candidate.batches, candidate.decode_batch)
    stages = problem.stages_in(candidate.placement)
    on_chips = [i for i in group if stages[i].kind is not StageKind.SERVER]
    if len(on_chips) < 2:
        return True
    tables = [stages[i] for i in on_chips]
    rows = [table.row(row[1], row[0]) for table in tables]
    held = sum(
        cache_bytes(table, at)[table.batches.index(batches[i])]
        for i, table, at in zip(on_chips, tables, rows, strict=True)
    )
    return bool(held <= room_bytes(tables, rows))


def _decode_rate(problem: Problem, candidate: Candidate, later_s: float, shared_s: float) -> float:
    """Answers per second; 0 where one takes too long."""
    decode, batch = problem.stages_in(candidate.placement)[-1], candidate.decode_batch
    row = decode.row(candidate.decode_chips, candidate.decode_kind)
    latency_s = decode.latency_s[row, decode.batches.index(batch)] + batch * shared_s
    answer_s = float(
        problem.answer_s(
            np.asarray(latency_s), np.asarray(batch), np.asarray(later_s),
            candidate.iterative_batch,
        )
    )  # fmt: skip
    return batch / answer_s if answer_s <= problem.max_answer_s else 0.0


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
    # A group starts with a server stage only where that stands alone; kinds of servers are
    # no kinds of chips.
    on_chips = [
        None if problem.stages[group[0]].kind is _SERVER else before[group[0]]
        for group in schedule.placement
    ]
    return Candidate(
        placement=schedule.placement,
        chips=tuple(0 if choice is None else choice.count for choice in on_chips),
        batches=tuple(choice.batch for choice in before),
        decode_chips=decode.count,
        decode_batch=decode.batch,
        kinds=tuple(0 if choice is None else choice.kind for choice in on_chips),
        decode_kind=decode.kind,
        servers=schedule.servers,
        server_kind=next(
            (c.kind for c, s in zip(before, problem.stages, strict=False) if s.kind is _SERVER), 0
        ),
        iterative_batch=schedule.iterative_batch,
    )


def later_s(problem: Problem, schedule: Schedule) -> float:
    """Seconds of an iterative batch in all stages that it goes through."""
    return sum(
        problem.later_of(stage, stage.row(choice.count, choice.kind), schedule.iterative_batch)
        for stage, choice in zip(
            problem.stages_in(schedule.placement)[:-1], schedule.choices, strict=False
        )
    )


def answer_s(problem: Problem, schedule: Schedule) -> float:
    """Seconds from the first to the last token of an answer in a full decode batch."""
    choice, table = schedule.choices[-1], problem.stages_in(schedule.placement)[-1]
    column = table.batches.index(choice.batch)
    decode_s = table.latency_s[table.row(choice.count, choice.kind), column]
    if problem.shares(schedule.placement):
        decode_s = decode_s + choice.batch * _before_s(problem, schedule, schedule.placement[-1])
    later = np.asarray(later_s(problem, schedule))
    again = schedule.iterative_batch
    return float(problem.answer_s(decode_s, np.asarray(choice.batch), later, again))


def per_request_s(problem: Problem, schedule: Schedule, group: Group) -> float:
    """Seconds that a request takes of a group, with its share of iterative batches."""
    if group[-1] == len(problem.stages) - 1:
        return answer_s(problem, schedule) / schedule.choices[-1].batch
    return _before_s(problem, schedule, group)


def _before_s(problem: Problem, schedule: Schedule, group: Group) -> float:
    """The same of a group's stages before decode."""
    again = schedule.iterative_batch
    stages = problem.stages_in(schedule.placement)
    total = 0.0
    for i in group:
        stage, choice = stages[i], schedule.choices[i]
        if stage.kind is StageKind.DECODE:
            continue
        row = stage.row(choice.count, choice.kind)
        total += float(stage.latency_s[row, stage.batches.index(choice.batch)]) / choice.batch
        if problem.iterative is not None and again is not None:
            total += problem.iterative.retrievals * problem.later_of(stage, row, again) / again
    return total
