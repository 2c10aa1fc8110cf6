"""Why a plan is as it is: what binds, what is idle, what one more resource would bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ragschema.hardware.devices import Accelerator, Device, Host
from ragschema.planner.assemble import Rate, SearchSpace
from ragschema.planner.axes import Objective, by_preference
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.play import per_request_s
from ragschema.planner.schedule import Schedule
from ragschema.pool import Pool


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
    schedule = plan.schedule
    found = []
    for group in plan.problem.groups_of(schedule.placement):
        rate = 1.0 / per_request_s(plan.problem, schedule, group)
        names = tuple(schedule.choices[i].stage for i in group)
        found.append(GroupLoad(names, rate, min(1.0, schedule.qps / rate)))
    return found


def binding(plan: Plan) -> GroupLoad:
    """The group that limits QPS."""
    return max(loads(plan), key=lambda load: load.utilisation)


def runner_up(plan: Plan) -> tuple[Schedule, str] | None:
    """The next schedule of the frontier, and why it was not taken."""
    ranked = by_preference(plan.frontier, plan.objective, plan.rates)
    other = next((s for s in ranked if s != plan.schedule), None)
    if other is None:
        return None
    rate = plan.objective.rate
    if rate is None:
        return other, f"TTFT is {other.ttft_s / plan.schedule.ttft_s - 1:.1%} higher"
    which = plan.rates.index(rate)
    worse = plan.schedule.values[which] / other.values[which] - 1
    if rate is Rate.PER_CHIP:
        return other, f"QPS per chip is {1 - 1 / (1 + worse):.1%} lower"
    return other, f"{rate} per request is {worse:.1%} higher"


def marginals(plan: Plan, space: SearchSpace) -> list[Marginal]:
    """Gain of the objective from a few more devices, and from 10 % more of a figure."""
    found = []
    for resource, changed in _richer(plan.pool).items():
        other = make_plan(plan.schema, changed, plan.objective, space)
        if not isinstance(other, Infeasible):
            found.append(Marginal(resource, _gain_pct(plan, other)))
    return sorted(found, key=lambda m: -m.gain_pct)


def _richer(pool: Pool) -> dict[str, Pool]:
    """Pools with a little more of one resource each, by the resource's name."""
    pools: dict[str, Pool] = {}
    if pool.chips_per_node is not None:
        more = pool.chips_per_node
        (chips,), (nodes,) = pool.chips, pool.nodes
        pools[f"{more} more accelerators"] = replace(
            pool,
            chips=(replace(chips, count=chips.count + more),),
            nodes=(replace(nodes, count=nodes.count + 1),),
            max_chips=pool.max_chips + more,
        )
    else:
        for at, chips in enumerate(pool.chips):
            grown = replace(chips, count=chips.count + 1)
            pools[f"1 more {chips.device.name}"] = replace(
                pool,
                chips=(*pool.chips[:at], grown, *pool.chips[at + 1 :]),
                max_chips=pool.max_chips + 1,
            )
        for at, nodes in enumerate(pool.nodes):
            wider = replace(nodes, count=nodes.count + 1)
            pools[f"1 more {nodes.device.name} for retrieval"] = replace(
                pool, nodes=(*pool.nodes[:at], wider, *pool.nodes[at + 1 :])
            )
    names = {
        "memory_bytes_per_s": "memory bandwidth",
        "flops_per_s": "FLOP/s",
    }
    for kind, what in ((Accelerator, "accelerator"), (Host, "host")):
        for figure, name in names.items():
            if any(isinstance(d, kind) and hasattr(d, figure) for d in pool.devices):
                pools[f"10 % more {name} per {what}"] = pool.changed(_scaled(kind, figure, 1.1))
    return pools


def _scaled(kind: type[Device], figure: str, factor: float) -> Callable[[Device], Device]:
    def change(device: Device) -> Device:
        if not isinstance(device, kind):
            return device
        values: dict[str, Any] = {figure: getattr(device, figure) * factor}
        return replace(device, **values)

    return change


def _gain_pct(plan: Plan, other: Plan) -> float:
    rate = plan.objective.rate
    if rate is None:
        return (1 - other.schedule.ttft_s / plan.schedule.ttft_s) * 100
    if plan.objective is Objective.MIN_CHIPS:
        return (1 - other.schedule.chips / plan.schedule.chips) * 100
    which = plan.rates.index(rate), other.rates.index(rate)
    return (other.schedule.values[which[1]] / plan.schedule.values[which[0]] - 1) * 100
