"""How many a plan lets in, against playing every limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.deploy import coordinator_for
from ragschema.planner.admission import limits_of, most_under_way
from ragschema.planner.arrivals import arrivals_for
from ragschema.planner.assemble import SearchSpace
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import read_plan, write_plan
from ragschema.planner.problem import Decoding
from ragschema.planner.simulate import simulate
from ragschema.rig import CoordinatorConfig
from ragschema.workload import ObjectivesConfig, parse_schema
from tests.ragschema.planner.test_mixing import cores

TEXT = (
    "version: 1\nname: x\ngenerator: {model: llama-3-8b}\n"
    "lengths: {question: 32, prompt: 192, output: 64}\n"
)


def planned(objectives: ObjectivesConfig, decoding: Decoding = Decoding.TOGETHER) -> Plan:
    schema = replace(parse_schema(TEXT, "s.yaml"), objectives=objectives)
    space = SearchSpace(max_decode_batch=16, decoding=decoding)
    plan = make_plan(schema, replace(cores(1.0), min_chips=2), space=space)
    assert isinstance(plan, Plan)
    return plan


def answered(plan: Plan, most: int | None, load: float) -> float:
    """Share of the plan's rate that is answered within the objectives."""
    rate = plan.schedule.qps
    arrivals_s = arrivals_for(plan.schema.arrivals, load * rate, 2000, seed=0)
    played = simulate(
        plan.problem, plan.schedule, arrivals_s, plan.policy, plan.mix.output,
        requests=plan.mix.sample(2000, seed=0), most=most,
    )  # fmt: skip
    return played.goodput_per_s(limits_of(plan.schema.objectives)) / rate


@pytest.fixture(scope="module")
def plan() -> Plan:
    free = planned(ObjectivesConfig(load=0.6))
    wanted = ObjectivesConfig(ttft_p99_s=1.2 * free.simulated["ttft_s_p99"], load=0.6)
    return planned(wanted)


def test_the_limit_is_nearly_as_good_as_the_best_one(plan: Plan) -> None:
    most = most_under_way(plan)
    assert most is not None
    best = max(answered(plan, n, 1.5) for n in range(1, 4 * most))
    assert answered(plan, most, 1.5) > 0.95 * best
    assert answered(plan, most, 1.5) > 1.2 * answered(plan, None, 1.5)


def test_at_the_promised_load_hardly_anybody_is_refused(plan: Plan) -> None:
    free, held = (answered(plan, most, 0.6) for most in (None, most_under_way(plan)))
    assert held > 0.99 * free


def test_a_stricter_objective_lets_in_fewer(plan: Plan) -> None:
    wanted = plan.schema.objectives
    assert wanted.ttft_p99_s is not None
    loose = replace(wanted, ttft_p99_s=3 * wanted.ttft_p99_s)
    other = replace(plan, schema=replace(plan.schema, objectives=loose))
    strict, generous = most_under_way(plan), most_under_way(other)
    assert strict is not None
    assert generous is not None
    assert strict < generous


def test_without_an_objective_there_is_no_limit() -> None:
    assert most_under_way(planned(ObjectivesConfig())) is None


def test_the_file_keeps_it_and_the_coordinator_obeys(plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "plan.yaml")
    stored = read_plan(tmp_path / "plan.yaml")
    assert stored.under_way == most_under_way(plan)
    deployed = coordinator_for(stored, CoordinatorConfig())
    assert deployed.limits.max_inflight == stored.under_way


def test_decode_apart_or_together_and_its_batch_are_chosen_by_the_objectives() -> None:
    """Whoever answers most in all writes too slowly: a smaller batch does not."""
    quick = planned(ObjectivesConfig(load=0.6), Decoding.EITHER)
    limit_s = 0.8 * quick.simulated["tpot_s_p99"]
    found = planned(ObjectivesConfig(tpot_p99_s=limit_s, load=0.6), Decoding.EITHER)
    assert found.simulated["tpot_s_p99"] <= limit_s
    assert found.schedule.qps < quick.schedule.qps
