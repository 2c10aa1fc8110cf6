"""Axes, objectives and pools of several kinds: what is chosen and what is shown."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.assemble import Rate, SearchSpace, problem_of
from ragschema.planner.axes import Axis, Objective, spread_over
from ragschema.planner.exhaustive import every_schedule
from ragschema.planner.levels import search_levels
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import device_of, plan_document
from ragschema.planner.play import answer_s
from ragschema.planner.reproduce.rago import case1, rago_pool
from ragschema.planner.search import Gap
from ragschema.pool import Pool, load_pool
from ragschema.workload import DatabaseConfig, ObjectivesConfig, RagSchema, load_schema

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SMALL = SearchSpace(max_batch=4, max_decode_batch=16)


def gpus(**more: object) -> Pool:
    return replace(load_pool(EXAMPLES / "pools" / "gpus.yaml"), **more)


def few_gpus() -> Pool:
    """Few enough to look at every schedule."""
    pool = gpus(max_chips=4)
    return replace(
        pool,
        chips=tuple(replace(c, count=2) for c in pool.chips),
        nodes=tuple(replace(n, count=6) for n in pool.nodes),
    )


def workload() -> RagSchema:
    schema = load_schema(EXAMPLES / "schemas" / "chatbot.yaml")
    return replace(schema, objectives=ObjectivesConfig(), reranker=None)


def planned(objective: Objective, pool: Pool, schema: RagSchema, **more: object) -> Plan:
    plan = make_plan(schema, pool, objective, **more)  # type: ignore[arg-type]
    assert isinstance(plan, Plan), plan
    return plan


def test_the_cheapest_plan_costs_no_more_than_any_other() -> None:
    cheap = planned(Objective.MIN_COST, gpus(), workload())
    dense = planned(Objective.MAX_QPS_PER_CHIP, gpus(), workload())
    frugal = planned(Objective.MIN_ENERGY, gpus(), workload())
    for rate, best in ((Rate.PER_COST, cheap), (Rate.PER_WATT, frugal)):
        for other in (cheap, dense, frugal):
            assert best.per_request(rate) <= other.per_request(rate) * (1 + 1e-9)  # type: ignore[operator]
    assert dense.schedule.qps_per_chip >= cheap.schedule.qps_per_chip
    assert {device_of(cheap)(c) for c in cheap.schedule.choices} != {
        device_of(dense)(c) for c in dense.schedule.choices
    }


def test_cost_per_request_by_hand() -> None:
    plan = planned(Objective.MIN_COST, gpus(), workload())
    device = device_of(plan)
    prices = {d.name: d.price_per_h for d in plan.pool.devices}
    counted: dict[tuple[int, ...], float] = {}
    for group in plan.problem.groups_of(plan.schedule.placement):
        for i in group:
            choice = plan.schedule.choices[i]
            key = group if choice.stage != "retrieval" else (i,)
            counted[key] = choice.count * (prices[device(choice)] or 0.0)
    wanted = sum(counted.values()) / 3600 / plan.schedule.qps
    assert plan.per_request(Rate.PER_COST) == pytest.approx(wanted)
    assert plan.per_request(Rate.PER_COST) == pytest.approx(1 / plan.schedule.value / 3600)


def test_a_device_without_a_price_is_named() -> None:
    pool = gpus()
    bare = replace(pool, chips=tuple(replace(c, device=replace(c.device, price_per_h=None))
                                     for c in pool.chips))  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        make_plan(workload(), bare, Objective.MIN_COST)
    assert caught.value.field == "pool.h100-sxm.price_per_h"
    plan = planned(Objective.MAX_QPS_PER_CHIP, bare, workload())
    assert plan.per_request(Rate.PER_COST) is None


@pytest.mark.parametrize("axes", [
    (Axis.TTFT, Axis.COST),
    (Axis.TTFT, Axis.TPOT),
    (Axis.TPOT, Axis.QPS_PER_CHIP),
    (Axis.TTFT, Axis.QPS_PER_CHIP, Axis.COST),
    (Axis.TTFT, Axis.TPOT, Axis.COST),
    (Axis.QPS_PER_CHIP, Axis.COST, Axis.ENERGY),
], ids=lambda axes: "-".join(axes))  # fmt: skip
def test_frontiers_over_any_axes_are_those_of_enumeration(axes: tuple[Axis, ...]) -> None:
    rates = (Rate.PER_COST, Rate.PER_CHIP, Rate.PER_WATT)
    problem = problem_of(workload(), few_gpus(), SMALL, rates)
    everything = spread_over(problem, list(every_schedule(problem)), axes, rates)
    plan = planned(Objective.MIN_COST, few_gpus(), workload(), space=SMALL, axes=axes)

    def rows(schedules: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        return sorted(schedules)

    def of(problem_rates: tuple[Rate, ...], found: object) -> list[tuple[float, ...]]:
        rows = []
        for s in found:  # type: ignore[attr-defined]
            row = []
            for axis in axes:
                if axis is Axis.TTFT:
                    row.append(s.ttft_s)
                elif axis is Axis.TPOT:
                    row.append(answer_s(problem, s))
                else:
                    row.append(s.values[problem_rates.index(Rate(axis))])
            rows.append(tuple(row))
        return sorted(rows)

    wanted, found = of(rates, everything), of(plan.rates, plan.shown)
    assert len(wanted) == len(found)
    for a, b in zip(wanted, found, strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_levels_only_add_to_the_plain_frontier() -> None:
    problem = problem_of(case1("llama-3-8b"), rago_pool(), SearchSpace(max_batch=8))
    found, gap = search_levels(problem)
    assert gap == Gap()
    tpot = {answer_s(problem, s) for s in found}
    assert len(tpot) > 3
    assert all(a != b for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("axes", [(), (Axis.TTFT,), (Axis.TTFT, Axis.TTFT), tuple(Axis)[:4]])
def test_too_few_or_too_many_axes_are_refused(axes: tuple[Axis, ...]) -> None:
    if not axes:
        return  # none given: the default
    with pytest.raises(InvalidInput, match="two or three"):
        make_plan(workload(), gpus(), axes=axes)


def test_one_kind_of_node_holds_the_database() -> None:
    document = plan_document(planned(Objective.MIN_COST, gpus(), workload()))
    assert len(document["pool"]["retrieval"]) == 1
    assert set(document["pool"]["accelerators"]) <= {"h100-sxm", "l4"}


@pytest.mark.parametrize("objective", [Objective.MIN_TTFT, Objective.MIN_COST])
def test_more_kinds_of_nodes_than_of_accelerators(objective: Objective) -> None:
    pool = gpus()
    plan = planned(objective, replace(pool, chips=pool.chips[:1], max_chips=16), workload())
    document = plan_document(plan)
    assert list(document["pool"]["accelerators"]) == ["h100-sxm"]
    assert list(document["pool"]["retrieval"]) == ["u55c"]  # the second kind


def test_a_database_without_nodes_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        make_plan(workload(), gpus(nodes=()))
    assert caught.value.field == "pool.retrieval"


def test_a_tree_on_a_card_is_refused() -> None:
    tree = replace(workload(), database=DatabaseConfig(vectors=1e8))
    with pytest.raises(InvalidInput, match="no model of a search with index tree on 'u55c'"):
        make_plan(tree, gpus())


def test_limits_of_kinds_hold() -> None:
    plan = planned(Objective.MIN_TTFT, gpus(), workload())
    used = plan_document(plan)["pool"]["accelerators"]
    assert used.get("h100-sxm", 0) <= 16
    assert used.get("l4", 0) <= 32


def test_a_retrieval_gpu_serves_where_it_is_the_only_node() -> None:
    pool = gpus()
    h100 = next(c.device for c in pool.chips if c.device.name == "h100-sxm")
    pool = replace(pool, nodes=(replace(pool.nodes[0], device=h100, count=4),))
    plan = planned(Objective.MIN_TTFT, pool, workload())
    assert plan_document(plan)["pool"]["retrieval"] == {"h100-sxm": plan.schedule.servers}
