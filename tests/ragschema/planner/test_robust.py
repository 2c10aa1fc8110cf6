"""Other loads and lost devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ragschema.planner.axes import Objective
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.reproduce.rago import case1, rago_pool
from ragschema.planner.robust import losses, over_loads
from ragschema.pool import load_pool
from ragschema.workload import DatabaseConfig, load_schema

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module")
def free() -> Plan:
    schema = load_schema(EXAMPLES / "schemas" / "chatbot.yaml")
    pool = load_pool(EXAMPLES / "pools" / "gpus.yaml")
    plan = make_plan(schema, pool, Objective.MIN_COST)
    assert isinstance(plan, Plan)
    return plan


def test_waiting_grows_with_the_load(free: Plan) -> None:
    found = over_loads(free, (0.3, 0.9, 1.5))
    waits = [at.ttft_s_p99 for at in found]
    assert waits == sorted(waits)
    # Above what it sustains, nearly all requests come too late.
    assert found[2].goodput_per_s < found[1].goodput_per_s
    assert [at.arrivals_per_s for at in found] == pytest.approx(
        [share * free.schedule.qps for share in (0.3, 0.9, 1.5)]
    )


def test_a_database_that_needs_every_node_stops_without_one(free: Plan) -> None:
    nodes = next(loss for loss in losses(free) if "retrieval" in loss.lost)
    assert nodes.qps == 0.0


def test_a_loss_never_helps(free: Plan) -> None:
    found = losses(free)
    assert len(found) == 1 + len(free.schedule.placement)
    assert all(0 <= loss.share <= 1 for loss in found)


@pytest.mark.parametrize(("vectors", "stops"), [(64e9, True), (1e9, False)])
def test_a_tied_host_takes_its_accelerators_along(vectors: float, stops: bool) -> None:
    schema = replace(case1("llama-3-70b"), database=DatabaseConfig(vectors=vectors))
    plan = make_plan(schema, rago_pool())
    assert isinstance(plan, Plan)
    found = losses(plan)
    assert [loss.lost.split(" of ")[0] for loss in found] == ["4", "4"]
    # The large database needs the memory of all 16 hosts.
    assert [loss.qps == 0.0 for loss in found] == [stops, stops]
    assert stops or all(0.8 < loss.share <= 1 for loss in found)


def test_a_host_to_spare_keeps_the_rest_going() -> None:
    schema = load_schema(EXAMPLES / "schemas" / "chatbot.yaml")
    pool = load_pool(EXAMPLES / "pools" / "gpus.yaml")
    plan = make_plan(schema, replace(pool, nodes=pool.nodes[:1]), Objective.MIN_TTFT)
    assert isinstance(plan, Plan)
    assert plan.schedule.servers is not None
    assert plan.schedule.servers > 1
    nodes = next(loss for loss in losses(plan) if "retrieval" in loss.lost)
    assert nodes.qps > 0
