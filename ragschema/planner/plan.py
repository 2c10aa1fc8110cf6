"""From a workload, a pool and objectives to one plan, or to what stands in its way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ragschema.errors import InvalidInput
from ragschema.planner.assemble import Rate, SearchSpace, divisions, problem_of, weights_for
from ragschema.planner.axes import (
    Axis,
    Objective,
    by_preference,
    check_axes,
    default_axes,
    rates_of,
    spread_over,
)
from ragschema.planner.infeasible import Infeasible, explain_none, tpot_of, tpot_out_of_reach
from ragschema.planner.levels import decode_levels, search_levels, within_level
from ragschema.planner.mix import Mix, mix_of
from ragschema.planner.play import candidate_of
from ragschema.planner.problem import Decoding, Problem, Weights
from ragschema.planner.provenance import Interval, Provenance, intervals_of, provenance_of
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import Gap, search_within
from ragschema.planner.simulate import Policy
from ragschema.planner.slo import asks_of_decode, asks_of_load
from ragschema.planner.verify import Verified, verified
from ragschema.planner.weighing import weight_of
from ragschema.pool import Pool
from ragschema.workload import ObjectivesConfig, RagSchema

Progress = Callable[[float], None]

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
    space = space or SearchSpace()
    best: Plan | Infeasible | None = None
    for divided in divisions(space, pool, asks_of_load(schema.objectives)):
        try:
            found = _in_time(
                schema,
                divided,
                lambda within: _make_plan(schema, pool, objective, within, progress, axes, limit_s),
            )
        except InvalidInput:
            if best is None:  # of one engine: nothing fits, whatever is divided
                raise
            continue
        best = found if best is None else _better(best, found, objective)
    assert best is not None, "there is a space to search"
    return best


def _in_time(
    schema: RagSchema, space: SearchSpace, make: Callable[[SearchSpace], Plan | Infeasible]
) -> Plan | Infeasible:
    """The plan of the largest decode batch that keeps the objectives under load.

    Engines that read and write by turns write more answers at once, the larger their batches, and
    each of them more slowly. Cores only: there the search is short.
    """
    found = make(space)
    mixed = space.engines is not None and space.decoding is Decoding.TOGETHER
    if not (mixed and asks_of_load(schema.objectives)):
        return found
    while isinstance(found, Infeasible) and space.max_decode_batch > 1:
        space = replace(space, max_decode_batch=space.max_decode_batch // 2)
        smaller = make(space)
        found = smaller if isinstance(smaller, Plan) else _nearer_miss(found, smaller)
    return found


def _better(
    one: Plan | Infeasible, other: Plan | Infeasible, objective: Objective
) -> Plan | Infeasible:
    """The plan that is preferred; the first of those that are as good."""
    if isinstance(one, Infeasible) or isinstance(other, Infeasible):
        return other if isinstance(one, Infeasible) and isinstance(other, Plan) else one
    both = by_preference([one.schedule, other.schedule], objective, one.rates)
    return one if both[0] is one.schedule else other


def _make_plan(
    schema: RagSchema,
    pool: Pool,
    objective: Objective,
    space: SearchSpace,
    progress: Progress | None,
    axes: Sequence[Axis] | None,
    limit_s: float,
) -> Plan | Infeasible:
    wanted = schema.objectives
    if objective is Objective.MIN_CHIPS and wanted.qps is None:
        raise InvalidInput(
            "min-chips needs a rate to serve", field="objectives.qps", hint="give requests per s"
        )
    axes = tuple(axes or default_axes(objective))
    check_axes(axes)
    rates = rates_of(objective, axes)
    problem = problem_of(schema, pool, space, rates)
    mix = mix_of(schema)
    limited = _limited(problem, wanted, mix.output)
    if limited is None:
        return tpot_out_of_reach(problem, mix)
    wish = objective, rates
    points, gap = _searched(limited, axes, progress, limit_s)
    found = _chosen(schema, mix, limited, wish, points, gap)
    if found is None:
        return explain_none(limited, schema, mix, points)
    apart = limited.iterative is None and limited.decoding is Decoding.APART
    if isinstance(found, Infeasible) and apart and asks_of_decode(wanted):
        found = _with_quicker_decode(schema, mix, limited, wish, found, limit_s)
    if isinstance(found, Infeasible):
        return found
    shown = spread_over(found.problem, list(found.allowed), axes, rates)
    chosen = found.verified
    return Plan(
        schema, pool, objective, found.problem, chosen.schedule,
        tpot_of(found.problem, mix, chosen.schedule), axes, rates, found.allowed, tuple(shown),
        found.gap, chosen.policy, chosen.simulated, mix,
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


def _with_quicker_decode(
    schema: RagSchema,
    mix: Mix,
    problem: Problem,
    wish: tuple[Objective, tuple[Rate, ...]],
    missed: Infeasible,
    limit_s: float,
) -> _Chosen | Infeasible:
    """A plan whose answers take less long, with as slow a decode as will do.

    The frontier over TTFT and rate has the largest decode batches only; with a limit on what
    decode may take, there are smaller ones. Stricter limits are taken to give quicker answers.
    """
    levels = decode_levels(problem)
    best: _Chosen | Infeasible = missed
    strict, loose = -1, len(levels) - 1
    while loose - strict > 1:
        middle = (strict + loose) // 2
        within = within_level(problem, levels[middle])
        found = _chosen(schema, mix, within, wish, *_searched(within, (), None, limit_s))
        if isinstance(found, Infeasible):
            best, loose = _nearer(best, found), middle
            continue
        strict = middle
        best = found if found is not None else best
    return best


def _nearer(best: _Chosen | Infeasible, found: Infeasible) -> _Chosen | Infeasible:
    """A plan before any miss, and of two misses of one objective the smaller one."""
    return _nearer_miss(best, found) if isinstance(best, Infeasible) else best


def _nearer_miss(best: Infeasible, found: Infeasible) -> Infeasible:
    if best.reached is None or found.reached is None:
        return best
    closer = best.binding != found.binding or found.reached < best.reached
    return found if closer else best


@dataclass(frozen=True)
class _Chosen:
    """A plan's schedule among those that were searched."""

    problem: Problem
    allowed: tuple[Schedule, ...]
    gap: Gap
    verified: Verified


def _chosen(
    schema: RagSchema,
    mix: Mix,
    problem: Problem,
    wish: tuple[Objective, tuple[Rate, ...]],
    points: Sequence[Schedule],
    gap: Gap,
) -> _Chosen | Infeasible | None:
    """The best of the points that is within the objectives; None: none has a low enough TTFT."""
    limit_s = schema.objectives.ttft_s
    allowed = [s for s in points if limit_s is None or s.ttft_s <= limit_s]
    if not allowed:
        return None
    found = verified(schema, mix, problem, by_preference(allowed, *wish))
    if isinstance(found, Infeasible):
        return found
    return _Chosen(problem, tuple(allowed), gap, found)


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
