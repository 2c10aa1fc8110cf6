"""Why a plan is as it is: what binds, what is idle, what one more resource would bring."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ragschema.planner.assemble import SearchSpace
from ragschema.planner.plan import Infeasible, Objective, Plan, make_plan
from ragschema.planner.schedule import Schedule


@dataclass(frozen=True)
class GroupLoad:
    """One group of a plan under its own QPS.

    Attributes:
        rate_per_s: what it could sustain alone.
        utilisation: of that, what the plan's QPS takes.
    """

    stages: tuple[str, ...]
    rate_per_s: float
    utilisation: float


@dataclass(frozen=True)
class Marginal:
    """What the objective would gain from a little more of a resource."""

    resource: str
    gain_pct: float


def loads(plan: Plan) -> list[GroupLoad]:
    """Every group, decode last; the binding one has a utilisation of 1."""
    stages, schedule = plan.problem.stages, plan.schedule
    found = []
    for group in (*schedule.placement, (len(stages) - 1,)):
        per_request_s = 0.0
        for i in group:
            choice, stage = schedule.choices[i], stages[i]
            at = stage.row(choice.count, choice.kind), stage.batches.index(choice.batch)
            per_request_s += float(stage.latency_s[at]) / choice.batch
        rate = 1.0 / per_request_s
        names = tuple(schedule.choices[i].stage for i in group)
        found.append(GroupLoad(names, rate, min(1.0, schedule.qps / rate)))
    return found


def binding(plan: Plan) -> GroupLoad:
    """The group that limits QPS."""
    return max(loads(plan), key=lambda load: load.utilisation)


def runner_up(plan: Plan) -> tuple[Schedule, str] | None:
    """The next schedule of the frontier, and why it was not taken."""
    others = [s for s in plan.frontier if s != plan.schedule]
    if not others:
        return None
    if plan.objective is Objective.MIN_TTFT:
        other = others[0]
        return other, f"TTFT is {other.ttft_s / plan.schedule.ttft_s - 1:.1%} higher"
    other = others[-1]
    lost = 1 - other.qps_per_chip / plan.schedule.qps_per_chip
    return other, f"QPS per chip is {lost:.1%} lower"


def marginals(plan: Plan, space: SearchSpace) -> list[Marginal]:
    """Gain of the objective from one host's worth of chips, and from 10 % more of a figure."""
    pool = plan.pool
    more_chips = pool.host.chips or 1
    pools = {
        f"{more_chips} more accelerators": replace(pool, max_chips=pool.max_chips + more_chips),
        "10 % more memory bandwidth per accelerator": replace(
            pool, chip=replace(pool.chip, memory_bytes_per_s=pool.chip.memory_bytes_per_s * 1.1)
        ),
        "10 % more FLOP/s per accelerator": replace(
            pool, chip=replace(pool.chip, flops_per_s=pool.chip.flops_per_s * 1.1)
        ),
        "10 % more memory bandwidth per host": replace(
            pool, host=replace(pool.host, memory_bytes_per_s=pool.host.memory_bytes_per_s * 1.1)
        ),
    }
    found = []
    for resource, changed in pools.items():
        other = make_plan(plan.schema, changed, plan.objective, space)
        if isinstance(other, Infeasible):
            continue
        found.append(Marginal(resource, _gain_pct(plan, other)))
    return sorted(found, key=lambda m: -m.gain_pct)


def _gain_pct(plan: Plan, other: Plan) -> float:
    if plan.objective is Objective.MIN_TTFT:
        return (1 - other.schedule.ttft_s / plan.schedule.ttft_s) * 100
    if plan.objective is Objective.MIN_CHIPS:
        return (1 - other.schedule.chips / plan.schedule.chips) * 100
    return (other.schedule.qps_per_chip / plan.schedule.qps_per_chip - 1) * 100
