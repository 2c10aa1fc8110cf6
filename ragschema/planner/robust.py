"""What a plan is worth when things are not as planned: other loads, a device lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragschema.planner.assemble import Counts, SearchSpace, problem_of
from ragschema.planner.plan import Plan
from ragschema.planner.played import Limits
from ragschema.planner.points import played_at
from ragschema.planner.problem import Group, Problem
from ragschema.planner.stages import StageKind, StageTable

_LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2)


@dataclass(frozen=True)
class AtLoad:
    """The plan under arrivals at a share of its QPS, with its own time-outs.

    Attributes:
        goodput_per_s: requests per second that meet the schema's TTFT and TPOT.
    """

    load: float
    arrivals_per_s: float
    ttft_s_p50: float
    ttft_s_p99: float
    tpot_s_p99: float
    goodput_per_s: float


@dataclass(frozen=True)
class Loss:
    """The plan's rate with one device less, everything else unchanged.

    Attributes:
        qps: that is left; 0: the plan cannot run until the device is replaced.
        share: of the plan's own.
    """

    lost: str
    qps: float
    share: float


def over_loads(plan: Plan, loads: Sequence[float] = _LOADS) -> list[AtLoad]:
    """The plan played at several loads; above 1 queues grow as long as the load lasts."""
    wanted = plan.schema.objectives
    limits = Limits(wanted.ttft_s, wanted.tpot_s)
    found = []
    for load in loads:
        rate, played = played_at(plan, load)
        report = played.report(limits)
        names = ("ttft_s_p50", "ttft_s_p99", "tpot_s_p99", "goodput_per_s")
        found.append(AtLoad(load, rate, *(report[name] for name in names)))
    return found


def losses(plan: Plan) -> list[Loss]:
    """What is left after the loss of one node, for every place where it may stand.

    Where hosts come with accelerators, a host takes its accelerators along.
    """
    per_node = plan.pool.chips_per_node
    # What is left is rarely a power of two.
    space = SearchSpace(counts=Counts.EVERY, decoding=plan.problem.decoding)
    every = problem_of(plan.schema, plan.pool, space)
    groups = plan.problem.groups_of(plan.schedule.placement)
    found = []
    for group in groups:
        chips, servers = _used(plan, group)
        name = " + ".join(plan.schedule.choices[i].stage for i in group)
        if chips:
            lost = per_node or 1
            what = f"{lost} of {chips} accelerators of {name}"
            found.append(_loss(plan, every, what, {group: lost}, 1 if per_node else 0))
        if servers and per_node is None:
            found.append(_loss(plan, every, f"1 of {servers} retrieval nodes", {}, 1))
    return found


def _used(plan: Plan, group: Group) -> tuple[int, int]:
    """Chips and retrieval nodes of a group."""
    stages, choices = plan.problem.stages, plan.schedule.choices
    on_chips = [choices[i].count for i in group if stages[i].kind is not StageKind.SERVER]
    nodes = [choices[i].count for i in group if stages[i].kind is StageKind.SERVER]
    return (on_chips[0] if on_chips else 0), sum(nodes)


def _loss(plan: Plan, every: Problem, what: str, chips: dict[Group, int], servers: int) -> Loss:
    rates = []
    for group in plan.problem.groups_of(plan.schedule.placement):
        per_request_s = 0.0
        for i in group:
            stage = every.stages_in(plan.schedule.placement)[i]
            choice = plan.schedule.choices[i]
            less = servers if stage.kind is StageKind.SERVER else chips.get(group, 0)
            again = plan.schedule.iterative_batch
            per_request_s += _per_request_s(
                every, stage, (choice.kind, choice.count - less), choice.batch, again
            )
        rates.append(1 / per_request_s)
    qps = min([plan.schedule.qps, *rates])
    return Loss(what, qps, qps / plan.schedule.qps)


def _per_request_s(
    problem: Problem, stage: StageTable, left: tuple[int, int], batch: int, again: int | None
) -> float:
    """Best seconds per request on what is left, of a kind so many; stalls are left out."""
    rows = [i for i, (k, n) in enumerate(stage.rows) if k == left[0] and n <= left[1]]
    if not rows:
        return math.inf
    later_s = 0.0
    if problem.iterative is not None and again is not None:
        later_s = problem.iterative.retrievals * problem.later_of(stage, rows[-1], again) / again
    return later_s + min(
        float(latency_s) / size
        for size, latency_s in zip(stage.batches, stage.latency_s[rows[-1]], strict=True)
        if size <= batch
    )
