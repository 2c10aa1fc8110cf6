"""Whether schedules meet objectives that only a simulation answers, and how batches wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragschema.planner.arrivals import arrivals_for
from ragschema.planner.decoding import Iteration
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.mix import Mix
from ragschema.planner.play import later_s
from ragschema.planner.played import Limits
from ragschema.planner.problem import Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.slo import nearest_miss, worst
from ragschema.workload import RagSchema

#: Requests that a schedule is played with: enough for a p99, quick enough for a frontier.
_REQUESTS = 10_000

#: Parts of the time in which a batch fills that its first request may be made to wait.
_FILL_SHARES = (0.0, 0.5, 1.0, 2.0)

#: Schedules that are looked at first, spread over all, with so many requests.
_SPREAD, _GLANCE = 12, 1000
#: Of those that miss, how many are played in full to tell how far off they are.
_NEAREST = 2


@dataclass(frozen=True)
class Verified:
    """A schedule that meets the objectives.

    Attributes:
        policy: how long batches wait to become full, before and during decode.
        simulated: the schedule under the schema's arrivals at the objectives' load.
    """

    schedule: Schedule
    policy: Policy
    simulated: Mapping[str, float]


def verified(
    schema: RagSchema, mix: Mix, problem: Problem, allowed: Sequence[Schedule]
) -> Verified | Infeasible:
    """The first schedule, best first, whose simulated percentiles are within the objectives.

    A glance at some, spread over all, tells where to look in full.
    """
    wanted = schema.objectives
    glances: list[tuple[float, Schedule]] = []
    looked = 0
    for place in _spread(len(allowed)):
        if len(allowed) > 1:
            _, glance = under_load(problem, schema, mix, allowed[place], _GLANCE)
            glances.append((worst(wanted, glance), allowed[place]))
            if glances[-1][0] > 1:
                continue
        for schedule in allowed[looked : place + 1]:
            policy, simulated = under_load(problem, schema, mix, schedule)
            if worst(wanted, simulated) <= 1:
                return Verified(schedule, policy, simulated)
        looked = place + 1
    nearest = sorted(glances, key=lambda glance: glance[0])[:_NEAREST]
    tried = [schedule for _, schedule in nearest] or [allowed[0]]
    played = [(s, *under_load(problem, schema, mix, s)) for s in tried]
    met = [Verified(*each) for each in played if worst(wanted, each[2]) <= 1]
    return met[0] if met else nearest_miss(wanted, [report for _, _, report in played])


def _spread(count: int) -> list[int]:
    """Places 0 .. count - 1, or evenly spread ones with both ends."""
    if count <= _SPREAD:
        return list(range(count))
    return sorted({round(i * (count - 1) / (_SPREAD - 1)) for i in range(_SPREAD)})


def under_load(
    problem: Problem, schema: RagSchema, mix: Mix, schedule: Schedule, most: int = _REQUESTS
) -> tuple[Policy, Mapping[str, float]]:
    """How batches wait, and percentiles under the schema's arrivals with them.

    Of several multiples of the time that a stage's batch takes to fill the one that meets the
    objectives, or misses them least, with the lowest p99 TTFT. Taking at once what is queued
    is not always best: stages that share chips may then never see a full batch, and fall
    behind.

    Args:
        most: requests to play.
    """
    wanted = schema.objectives
    rate = wanted.load * schedule.qps
    count = min(most, requests_for(problem))
    arrivals_s = arrivals_for(schema.arrivals, rate, count, seed=0)
    requests = mix.sample(count, seed=0)
    limits = Limits(
        wanted.ttft_p99_s or wanted.ttft_s, wanted.tpot_p99_s or wanted.tpot_s, wanted.e2e_p99_s
    )
    tried = []
    for share in _FILL_SHARES:
        timeouts_s = {
            choice.stage: share * (choice.batch - 1) / rate for choice in schedule.choices[:-1]
        }
        policy = Policy(timeouts_s, iteration=_iteration(problem, schedule, share, rate))
        played = simulate(problem, schedule, arrivals_s, policy, mix.output, requests=requests)
        tried.append((policy, played.report(limits)))
        largest = max(c.batch for c in schedule.choices[:-1])
        if max(largest, schedule.iterative_batch or 1) == 1:
            break
    policy, report = min(
        tried,
        key=lambda one: (
            max(1.0, worst(wanted, one[1])), one[1]["ttft_s_p99"], one[1]["tpot_s_p99"]
        ),
    )  # fmt: skip
    return policy, {"load": wanted.load, "arrivals_per_s": rate, **report}


def requests_for(problem: Problem) -> int:
    """Fewer where each retrieves many times."""
    again = problem.iterative.retrievals if problem.iterative is not None else 0
    return max(500, min(_REQUESTS, int(100_000 // (again + 1))))


def _iteration(problem: Problem, schedule: Schedule, share: float, rate: float) -> Iteration | None:
    """How sequences retrieve again, waiting for a part of the time their batch takes to fill."""
    again = schedule.iterative_batch
    if problem.iterative is None or again is None:
        return None
    retrievals = problem.iterative.retrievals
    fill_s = (again - 1) / (retrievals * rate)
    # Of classes that differ, each request says itself how often it comes back.
    each = int(retrievals) if retrievals == int(retrievals) else None
    return Iteration(each, again, later_s(problem, schedule), share * fill_s)
