"""Every schedule, one by one, timed by playing it: the reference of the search.

It shares the problem's vocabulary with ``search`` and nothing else: the burst is played
batch by batch instead of summed up, and nothing is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ragschema.planner.frontier import frontier_for
from ragschema.planner.play import Candidate, play
from ragschema.planner.problem import Group, Placement, Problem
from ragschema.planner.schedule import Frontier, Schedule
from ragschema.planner.stages import StageKind


def every_schedule(problem: Problem) -> Iterator[Schedule]:
    """All feasible schedules."""
    for candidate in candidates(problem):
        schedule = play(problem, candidate)
        if schedule is not None:
            yield schedule


def exhaustive(problem: Problem) -> Frontier:
    """The frontier by plain enumeration."""
    frontier = frontier_for(problem)
    for schedule in every_schedule(problem):
        frontier.offer(schedule)
    return frontier


def candidates(problem: Problem) -> Iterator[Candidate]:
    """All combinations whose chips may fit."""
    table = problem.server_stage
    free = problem.chips_per_server is None and table is not None
    for placement in problem.placements:
        for rows in itertools.product(*(chip_rows(problem, g) for g in placement)):
            for servers in table.rows if free and table is not None else (None,):
                yield from _with_batches(problem, placement, rows, servers)


def _with_batches(
    problem: Problem,
    placement: Placement,
    rows: tuple[tuple[int, int], ...],
    servers: tuple[int, int] | None,
) -> Iterator[Candidate]:
    stages = problem.before_decode
    kinds, chips = tuple(kind for kind, _ in rows), tuple(count for _, count in rows)
    server_kind, count = servers or (0, None)
    shared = problem.shares(placement)
    for decode_kind, decode_chips in [rows[-1]] if shared else problem.decode.rows:
        spent = rows if shared else (*rows, (decode_kind, decode_chips))
        if not problem.lowest_total <= sum(count for _, count in spent) <= problem.max_chips:
            continue
        if not _within_limits(problem, spent):
            continue
        for batches in itertools.product(*(stage.batches for stage in stages)):
            if problem.uniform_batch and len(set(batches)) > 1:
                continue
            for decode_batch, iterative_batch in itertools.product(
                problem.decode.batches, problem.iterative_batches
            ):
                if decode_batch >= max(batches):
                    yield Candidate(
                        placement, chips, batches, decode_chips, decode_batch, kinds,
                        decode_kind, count, server_kind, iterative_batch,
                    )  # fmt: skip


def _within_limits(problem: Problem, rows: Sequence[tuple[int, int]]) -> bool:
    return all(
        sum(count for of, count in rows if of == kind) <= limit.limit
        for kind, limit in enumerate(problem.kinds)
    )


def chip_rows(problem: Problem, group: Group) -> list[tuple[int, int]]:
    """Kinds and counts that every stage of a group has a row for; (0, 0) for servers alone."""
    tables = problem.stages_in((group,))
    on_chips = [set(tables[i].rows) for i in group if tables[i].kind is not StageKind.SERVER]
    return sorted(set.intersection(*on_chips)) if on_chips else [(0, 0)]


def chip_counts(problem: Problem, group: Group) -> list[int]:
    """The same without kinds, where there is one kind."""
    return [count for _, count in chip_rows(problem, group)]


def count_candidates(problem: Problem) -> int:
    """How many combinations ``candidates`` gives, without making them; for one kind."""
    batches = _batch_combinations(problem)
    total = 0
    for placement in problem.placements:
        spent = {0: 1}
        for group in placement:
            grown: dict[int, int] = {}
            for chips, ways in spent.items():
                for more in chip_counts(problem, group):
                    if chips + more <= problem.max_chips:
                        grown[chips + more] = grown.get(chips + more, 0) + ways
            spent = grown
        allocations = sum(
            ways
            for chips, ways in spent.items()
            for decode in problem.decode.counts
            if problem.lowest_total <= chips + decode <= problem.max_chips
        )
        total += allocations * batches
    return total


def _batch_combinations(problem: Problem) -> int:
    """Batch sizes of all stages with a decode batch at least the largest before it."""
    total = 0
    for decode_batch in problem.decode.batches:
        if problem.uniform_batch:
            common = set.intersection(*(set(s.batches) for s in problem.before_decode))
            total += sum(b <= decode_batch for b in common)
            continue
        ways = 1
        for stage in problem.before_decode:
            ways *= sum(b <= decode_batch for b in stage.batches)
        total += ways
    return total
