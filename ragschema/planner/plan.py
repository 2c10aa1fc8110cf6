"""From a workload, a pool and objectives to one plan, or to what stands in its way."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ragschema.errors import InvalidInput
from ragschema.planner.arrivals import poisson
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.problem import Problem
from ragschema.planner.schedule import Frontier, Schedule
from ragschema.planner.search import search
from ragschema.planner.simulate import Limits, Policy, simulate
from ragschema.pool import Pool
from ragschema.workload import ObjectivesConfig, RagSchema

Progress = Callable[[float], None]

#: Requests that a schedule is played with: enough for a p99, quick enough for a frontier.
_REQUESTS = 10_000

#: One definition per metric, printed wherever the metric is.
DEFINITIONS = {
    "ttft_s": "seconds to the first token: mean over a burst of the largest batch before"
    " decode that meets an idle system",
    "tpot_s": "seconds per output token of a request in a full decode batch",
    "qps": "requests per second that every stage sustains with full batches",
    "ttft_s_p99": "99 % of requests have their first token by then, under Poisson arrivals at"
    " the stated load, batches taking what is queued",
    "qps_per_chip": "qps over all accelerators of the plan; hosts are not counted",
}


class Objective(enum.StrEnum):
    """What is best; ties go to the lower TTFT, then to fewer chips."""

    MAX_QPS_PER_CHIP = "max-qps-per-chip"
    MIN_TTFT = "min-ttft"
    MIN_CHIPS = "min-chips"


@dataclass(frozen=True)
class Plan:
    """A schedule that meets the objectives.

    Attributes:
        tpot_s: at the decode batch of the schedule.
        frontier: all undominated schedules within the objectives, by TTFT.
        simulated: the schedule under Poisson arrivals at the objectives' load.
    """

    schema: RagSchema
    pool: Pool
    objective: Objective
    problem: Problem
    schedule: Schedule
    tpot_s: float
    frontier: tuple[Schedule, ...]
    simulated: Mapping[str, float]


@dataclass(frozen=True)
class Infeasible:
    """Why there is no plan.

    Attributes:
        binding: the objective or resource that nothing meets.
        reached: the best value that can be had for it, others being met; None: the pool
            cannot run the workload at all.
        change: the smallest change that makes a plan possible.
    """

    binding: str
    reached: float | None
    change: str


def make_plan(
    schema: RagSchema,
    pool: Pool,
    objective: Objective = Objective.MAX_QPS_PER_CHIP,
    space: SearchSpace | None = None,
    progress: Progress | None = None,
) -> Plan | Infeasible:
    """The best plan under the schema's objectives.

    Raises:
        InvalidInput: an objective needs a figure that the schema does not give, or a
            stage does not fit the pool's memory at all.
    """
    wanted = schema.objectives
    if objective is Objective.MIN_CHIPS and wanted.qps is None:
        raise InvalidInput(
            "min-chips needs a rate to serve", field="objectives.qps", hint="give requests per s"
        )
    space = space or SearchSpace()
    problem = problem_of(schema, pool, space)
    limited = _limited(problem, wanted, schema.lengths.output)
    if limited is None:
        return _tpot_out_of_reach(problem, schema)
    frontier = search(limited, progress)
    allowed = [s for s in frontier.points if wanted.ttft_s is None or s.ttft_s <= wanted.ttft_s]
    if not allowed:
        return _explain(limited, schema, frontier)
    return _verified(schema, pool, objective, limited, allowed)


def _verified(
    schema: RagSchema, pool: Pool, objective: Objective, problem: Problem, allowed: list[Schedule]
) -> Plan | Infeasible:
    """The first schedule, best first, whose simulated p99 is within the objective."""
    lowest = math.inf
    for schedule in by_preference(allowed, objective):
        simulated = under_load(problem, schema, schedule)
        p99_s = simulated["ttft_s_p99"]
        if schema.objectives.ttft_p99_s is None or p99_s <= schema.objectives.ttft_p99_s:
            tpot_s = tpot_of(problem, schema, schedule)
            return Plan(
                schema, pool, objective, problem, schedule, tpot_s, tuple(allowed), simulated
            )
        lowest = min(lowest, p99_s)
    return Infeasible(
        "objectives.ttft_p99_s",
        lowest,
        f"allow a p99 TTFT of {lowest:.3g} s, or plan for a lower load",
    )


def by_preference(schedules: list[Schedule], objective: Objective) -> list[Schedule]:
    """A frontier's schedules, which ascend in TTFT and in QPS per chip, best first."""
    if objective is Objective.MIN_TTFT:
        return schedules
    # With a wanted rate, the best QPS per chip is the fewest chips that reach it.
    return schedules[::-1]


def under_load(problem: Problem, schema: RagSchema, schedule: Schedule) -> dict[str, float]:
    """Percentiles under Poisson arrivals, batches taking what is queued."""
    wanted = schema.objectives
    rate = wanted.load * schedule.qps
    played = simulate(
        problem,
        schedule,
        poisson(rate, _REQUESTS, seed=0),
        Policy(default_timeout_s=0.0),
        schema.lengths.output,
    )
    limits = Limits(wanted.ttft_s, wanted.tpot_s)
    return {"load": wanted.load, "arrivals_per_s": rate, **played.report(limits)}


def tpot_of(problem: Problem, schema: RagSchema, schedule: Schedule) -> float:
    """Seconds per output token at the schedule's decode batch."""
    decode, table = schedule.choices[-1], problem.decode
    latency_s = table.latency_s[
        table.row(decode.count, decode.kind), table.batches.index(decode.batch)
    ]
    return float(latency_s) / schema.lengths.output


def _limited(problem: Problem, wanted: ObjectivesConfig, output: int) -> Problem | None:
    """The problem without decode batches that are too slow; None: all are."""
    decode = problem.decode
    if wanted.tpot_s is not None:
        latency = decode.latency_s.copy()
        latency[latency / output > wanted.tpot_s] = math.inf
        if not (latency < math.inf).any():
            return None
        decode = replace(decode, latency_s=latency)
    return replace(problem, stages=(*problem.before_decode, decode), wanted_qps=wanted.qps)


def _tpot_out_of_reach(problem: Problem, schema: RagSchema) -> Infeasible:
    lowest = float(problem.decode.latency_s.min()) / schema.lengths.output
    return Infeasible(
        "objectives.tpot_s", lowest, f"allow a TPOT of {lowest:.3g} s, or use faster chips"
    )


def _explain(problem: Problem, schema: RagSchema, within_rate: Frontier) -> Infeasible:
    """Which objective binds: drops one after the other."""
    wanted = schema.objectives
    if within_rate.points:
        lowest = within_rate.points[0].ttft_s
        return Infeasible("objectives.ttft_s", lowest, f"allow a TTFT of {lowest:.3g} s")
    free = search(replace(problem, wanted_qps=None)).points
    if not free:
        return Infeasible(
            "max_accelerators",
            None,
            f"give more than {problem.max_chips} accelerators, or ones with more memory",
        )
    allowed = [s for s in free if wanted.ttft_s is None or s.ttft_s <= wanted.ttft_s]
    if not allowed:
        lowest = free[0].ttft_s
        return Infeasible("objectives.ttft_s", lowest, f"allow a TTFT of {lowest:.3g} s")
    assert wanted.qps is not None, "else there would be a plan"
    most = allowed[-1].qps_per_chip
    chips = math.ceil(wanted.qps / most)
    reached = max(s.qps for s in allowed)
    return Infeasible(
        "objectives.qps",
        reached,
        f"ask for {reached:.4g} requests per second, or give about {chips} accelerators",
    )
