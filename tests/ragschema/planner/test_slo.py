"""Percentiles under load as objectives: what is missed, by how much, and what would do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragschema.planner.assemble import SearchSpace
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.slo import REPORTED, asks_of_decode, nearest_miss, shares, worst
from ragschema.pool import parse_pool
from ragschema.workload import ObjectivesConfig, parse_schema

POOL = """
version: 1
accelerators: [{device: l4, count: 4}]
"""
SCHEMA = """
version: 1
name: chat
generator: {model: llama-3-8b}
lengths: {prompt: 400, output: 150}
"""
SPACE = SearchSpace(max_batch=8, max_decode_batch=64)


def report(**given: float) -> dict[str, float]:
    return dict.fromkeys(REPORTED.values(), 1.0) | given


def planned(wanted: ObjectivesConfig) -> Plan | Infeasible:
    schema = replace(parse_schema(SCHEMA, "s.yaml"), objectives=wanted)
    return make_plan(schema, parse_pool(POOL, "p.yaml"), space=SPACE)


def test_shares_are_of_what_was_asked_for() -> None:
    wanted = ObjectivesConfig(ttft_p99_s=2.0, e2e_p50_s=0.5)
    assert shares(wanted, report()) == {"ttft_p99_s": 0.5, "e2e_p50_s": 2.0}
    assert worst(wanted, report()) == 2.0
    assert worst(ObjectivesConfig(), report()) == 0.0


def test_which_objectives_need_quick_decode() -> None:
    assert not asks_of_decode(ObjectivesConfig(ttft_p99_s=1.0, tpot_s=1.0))
    assert asks_of_decode(ObjectivesConfig(e2e_p99_s=1.0))
    assert asks_of_decode(ObjectivesConfig(tpot_p50_s=1.0))


def test_the_nearest_miss_names_all_that_it_misses() -> None:
    wanted = ObjectivesConfig(ttft_p99_s=0.5, e2e_p99_s=0.9)
    far, near = report(ttft_s_p99=4.0), report(ttft_s_p99=0.6, e2e_s_p99=1.8)
    found = nearest_miss(wanted, [far, near])
    assert (found.binding, found.reached) == ("objectives.e2e_p99_s", 1.8)
    assert "e2e_p99_s of 1.802 s and ttft_p99_s of 0.6006 s" in found.change


@pytest.mark.parametrize("name", list(REPORTED))
def test_every_objective_is_met_in_simulation(name: str) -> None:
    free = planned(ObjectivesConfig())
    assert isinstance(free, Plan)
    limit = free.simulated[REPORTED[name]] * 0.9
    plan = planned(ObjectivesConfig(**{name: limit}))
    assert isinstance(plan, Plan)
    assert plan.simulated[REPORTED[name]] <= limit
    assert plan.schedule.value <= free.schedule.value * (1 + 1e-12)


def test_a_tight_tpot_takes_smaller_decode_batches() -> None:
    free = planned(ObjectivesConfig())
    assert isinstance(free, Plan)
    tight = planned(ObjectivesConfig(tpot_p99_s=free.simulated["tpot_s_p99"] * 0.75))
    assert isinstance(tight, Plan)
    assert tight.tpot_s < free.tpot_s


def test_what_nothing_meets_is_a_result_that_helps() -> None:
    found = planned(ObjectivesConfig(e2e_p99_s=1e-3, tpot_p99_s=1e-5))
    assert isinstance(found, Infeasible)
    assert found.binding in ("objectives.e2e_p99_s", "objectives.tpot_p99_s")
    assert "e2e_p99_s of" in found.change
    assert "tpot_p99_s of" in found.change
