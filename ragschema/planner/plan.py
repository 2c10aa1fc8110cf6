"""From a workload, a pool and objectives to one plan, or to what stands in its way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ragschema.errors import InvalidInput
from ragschema.planner.arrivals import arrivals_for
from ragschema.planner.assemble import Rate, SearchSpace, problem_of, weights_for
from ragschema.planner.axes import (
    Axis,
    Objective,
    by_preference,
    check_axes,
    default_axes,
    rates_of,
    spread_over,
)
from ragschema.planner.decoding import Iteration
from ragschema.planner.infeasible import Infeasible, explain_none, tpot_of, tpot_out_of_reach
from ragschema.planner.levels import search_levels
from ragschema.planner.mix import Mix, mix_of
from ragschema.planner.play import candidate_of, later_s
from ragschema.planner.problem import Decoding, Problem, Weights
from ragschema.planner.provenance import Interval, Provenance, intervals_of, provenance_of
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import Gap, search_within
from ragschema.planner.simulate import Limits, Policy, simulate
from ragschema.planner.slo import asks_of_decode, nearest_miss, worst
from ragschema.planner.weighing import weight_of
from ragschema.pool import Pool
from ragschema.workload import ObjectivesConfig, RagSchema

Progress = Callable[[float], None]

#: Requests that a schedule is played with: enough for a p99, quick enough for a frontier.
_REQUESTS = 10_000

#: Parts of the time in which a batch fills that its first request may be made to wait.
_FILL_SHARES = (0.0, 0.5, 1.0, 2.0)

#: One definition per metric, printed wherever the metric is.
DEFINITIONS = {
    "ttft_s": "seconds to the first token: mean over a burst of the largest batch before"
    " decode that meets an idle system",
    "tpot_s": "seconds per output token of a request in a full decode batch",
    "qps": "requests per second that every stage sustains with full batches",
    "ttft_s_p99": "99 % of requests have their first token by then, under the schema's arrivals"
    " at the stated load, with the plan's time-outs",
    "e2e_s_p99": "99 % of requests have their last token by then, likewise",
    "qps_per_chip": "qps over all accelerators of the plan; hosts are not counted",
    "cost_per_1000": "price of all devices of the plan over 1000 requests at its qps",
    "energy_j": "watts of all devices at full load over its qps, per request",
}


@dataclass(frozen=True)
class Plan:
    """A schedule that meets the objectives.

    Attributes:
        tpot_s: at the decode batch of the schedule.
        axes: of the frontier that is shown.
        rates: that the search kept apart, the objective's first.
        frontier: all undominated schedules within the objectives, by TTFT.
        shown: of them, those that are undominated in the chosen axes.
        gap: how far the frontier may be from the exact one; zeros unless time ran out.
        policy: how long batches wait to become full, before and during decode.
        simulated: the schedule under the schema's arrivals at the objectives' load.
        mix: of requests, which ``simulated`` draws from.
    """

    schema: RagSchema
    pool: Pool
    objective: Objective
    problem: Problem
    schedule: Schedule
    tpot_s: float
    axes: tuple[Axis, ...]
    rates: tuple[Rate, ...]
    frontier: tuple[Schedule, ...]
    shown: tuple[Schedule, ...]
    gap: Gap
    policy: Policy
    simulated: Mapping[str, float]
    mix: Mix

    def per_request(self, rate: Rate) -> float | None:
        """What a request of the plan costs: currency, or joules; None: a figure is not known."""
        try:
            weights = weights_for(rate, self.pool, self.schedule.servers is not None)
        except InvalidInput:
            return None
        per_s = self.total(weights) / (3600 if rate is Rate.PER_COST else 1)
        return per_s / self.schedule.qps

    @cached_property
    def provenance(self) -> Mapping[str, Provenance]:
        """Where each stage's latency comes from."""
        return provenance_of(self.problem, self.schedule)

    @cached_property
    def intervals(self) -> Mapping[str, Interval]:
        """Of predicted figures; empty where all are modelled."""
        return intervals_of(self.problem, self.mix, self.schedule)

    @property
    def cost_per_1000(self) -> float | None:
        """Currency for 1000 requests; None: a price is not known."""
        cost = self.per_request(Rate.PER_COST)
        return None if cost is None else 1000 * cost

    def total(self, weights: Weights) -> float:
        """The weight of all devices of the plan."""
        played = candidate_of(self.problem, self.schedule)
        servers = None if played.servers is None else (played.server_kind, played.servers)
        return weight_of(self.problem, weights, played.spent(len(self.problem.kinds)), servers)


def make_plan(
    schema: RagSchema,
    pool: Pool,
    objective: Objective = Objective.MAX_QPS_PER_CHIP,
    space: SearchSpace | None = None,
    progress: Progress | None = None,
    axes: Sequence[Axis] | None = None,
    limit_s: float = math.inf,
) -> Plan | Infeasible:
    """The best plan under the schema's objectives.

    Args:
        axes: of the frontier that is shown; None: TTFT and the objective's rate.
        limit_s: of the search, which then says how far it may be from the best.

    Raises:
        InvalidInput: an objective needs a figure that the schema does not give, or a
            stage does not fit the pool's memory at all.
    """
    wanted = schema.objectives
    if objective is Objective.MIN_CHIPS and wanted.qps is None:
        raise InvalidInput(
            "min-chips needs a rate to serve", field="objectives.qps", hint="give requests per s"
        )
    axes = tuple(axes or default_axes(objective))
    check_axes(axes)
    rates = rates_of(objective, axes)
    problem = problem_of(schema, pool, space or SearchSpace(), rates)
    mix = mix_of(schema)
    limited = _limited(problem, wanted, mix.output)
    if limited is None:
        return tpot_out_of_reach(problem, mix)
    deeper = axes
    if limited.iterative is None and limited.decoding is Decoding.APART and asks_of_decode(wanted):
        # The frontier over TTFT and rate has the largest decode batches only.
        deeper = (*axes, Axis.TPOT)
    points, gap = _searched(limited, deeper, progress, limit_s)
    allowed = [s for s in points if wanted.ttft_s is None or s.ttft_s <= wanted.ttft_s]
    if not allowed:
        return explain_none(limited, schema, mix, points)
    shown = spread_over(limited, allowed, axes, rates)
    found = _verified(schema, mix, limited, by_preference(allowed, objective, rates))
    if isinstance(found, Infeasible):
        return found
    schedule, policy, simulated = found
    tpot_s = tpot_of(limited, mix, schedule)
    return Plan(
        schema, pool, objective, limited, schedule, tpot_s, axes, rates, tuple(allowed),
        tuple(shown), gap, policy, simulated, mix,
    )  # fmt: skip


def _searched(
    problem: Problem, axes: Sequence[Axis], progress: Progress | None, limit_s: float
) -> tuple[Sequence[Schedule], Gap]:
    if not limit_s > 0:
        raise InvalidInput(
            f"{limit_s} s is no time to search", field="time_limit", hint="give seconds above 0"
        )
    if Axis.TPOT not in axes:
        frontier, gap = search_within(problem, limit_s, progress)
        return frontier.points, gap
    if problem.iterative is not None or problem.decoding is not Decoding.APART:
        raise InvalidInput(
            "TPOT is no axis where answers retrieve again, or decode shares its accelerators:"
            " it depends on more than decode there",
            field="axes",
            hint="give objectives.tpot_s as a limit instead",
        )
    return search_levels(problem, progress, limit_s)


def _verified(
    schema: RagSchema, mix: Mix, problem: Problem, allowed: list[Schedule]
) -> tuple[Schedule, Policy, Mapping[str, float]] | Infeasible:
    """The first schedule, best first, whose simulated percentiles are within the objectives."""
    reports = []
    for schedule in allowed:
        policy, simulated = under_load(problem, schema, mix, schedule)
        if worst(schema.objectives, simulated) <= 1:
            return schedule, policy, simulated
        reports.append(simulated)
    return nearest_miss(schema.objectives, reports)


def under_load(
    problem: Problem, schema: RagSchema, mix: Mix, schedule: Schedule
) -> tuple[Policy, Mapping[str, float]]:
    """How batches wait, and percentiles under the schema's arrivals with them.

    Of several multiples of the time that a stage's batch takes to fill the one that meets the
    objectives, or misses them least, with the lowest p99 TTFT. Taking at once what is queued
    is not always best: stages that share chips may then never see a full batch, and fall
    behind.
    """
    wanted = schema.objectives
    rate = wanted.load * schedule.qps
    count = requests_for(problem)
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


def _limited(problem: Problem, wanted: ObjectivesConfig, output: float) -> Problem | None:
    """The problem without decode batches that are too slow; None: all are."""
    decode = problem.decode
    if wanted.tpot_s is not None and problem.iterative is None:
        latency = decode.latency_s.copy()
        latency[latency / output > wanted.tpot_s] = math.inf
        if not (latency < math.inf).any():
            return None
        decode = replace(decode, latency_s=latency)
    longest_s = math.inf if wanted.tpot_s is None else wanted.tpot_s * output
    return replace(
        problem,
        stages=(*problem.before_decode, decode),
        wanted_qps=wanted.qps,
        max_answer_s=longest_s,
    )
