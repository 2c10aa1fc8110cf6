"""Plans under objectives: what is chosen, what binds, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ragschema.errors import InvalidInput, NotFound
from ragschema.hardware.devices import Accelerator
from ragschema.planner.assemble import Counts, SearchSpace
from ragschema.planner.axes import Objective
from ragschema.planner.explain import binding, loads, marginals, runner_up
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import plan_document, read_plan, write_plan
from ragschema.planner.reproduce.rago import case1, case2, case4, rago_pool
from ragschema.workload import ObjectivesConfig, RagSchema

SMALL = case1("llama-3-8b")


def planned(schema: RagSchema, objective: Objective = Objective.MAX_QPS_PER_CHIP) -> Plan:
    found = make_plan(schema, rago_pool(), objective)
    assert isinstance(found, Plan), found
    return found


def asked(objectives: ObjectivesConfig, schema: RagSchema = SMALL) -> Plan | Infeasible:
    objective = Objective.MIN_CHIPS if objectives.qps else Objective.MAX_QPS_PER_CHIP
    return make_plan(replace(schema, objectives=objectives), rago_pool(), objective)


def test_objectives_pick_opposite_ends_of_the_frontier() -> None:
    dense, quick = planned(SMALL), planned(SMALL, Objective.MIN_TTFT)
    assert dense.frontier == quick.frontier
    assert dense.schedule == dense.frontier[-1]
    assert quick.schedule == quick.frontier[0]


def test_a_looser_ttft_never_costs_rate() -> None:
    rates = []
    for ttft_s in (0.014, 0.016, 0.02, 0.03, 1.0):
        plan = asked(ObjectivesConfig(ttft_s=ttft_s))
        assert isinstance(plan, Plan)
        assert plan.schedule.ttft_s <= ttft_s
        rates.append(plan.schedule.qps_per_chip)
    assert rates == sorted(rates)


def test_a_wanted_rate_takes_the_fewest_chips_that_reach_it() -> None:
    chips = []
    for qps in (100.0, 250.0, 400.0):
        plan = asked(ObjectivesConfig(qps=qps), case1("llama-3-70b"))
        assert isinstance(plan, Plan)
        assert plan.schedule.qps == pytest.approx(qps)
        chips.append(plan.schedule.chips)
    assert chips == sorted(chips)
    assert chips[0] == 64  # the database needs the hosts of 64
    assert chips[-1] > 100


def test_min_chips_without_a_rate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a rate"):
        make_plan(SMALL, rago_pool(), Objective.MIN_CHIPS)


@pytest.mark.parametrize(
    ("objectives", "binds"),
    [
        (ObjectivesConfig(ttft_s=1e-4), "objectives.ttft_s"),
        (ObjectivesConfig(tpot_s=1e-7), "objectives.tpot_s"),
        (ObjectivesConfig(qps=1e6), "objectives.qps"),
        (ObjectivesConfig(qps=1500.0, ttft_s=0.0137), "objectives.ttft_s"),
        (ObjectivesConfig(ttft_p99_s=1e-3), "objectives.ttft_p99_s"),
    ],
)
def test_what_stands_in_the_way_is_named(objectives: ObjectivesConfig, binds: str) -> None:
    found = asked(objectives)
    assert isinstance(found, Infeasible)
    assert found.binding == binds
    assert found.reached is not None
    assert found.change


@pytest.mark.parametrize("name", ["ttft_s", "tpot_s", "ttft_p99_s"])
def test_the_smallest_change_is_enough(name: str) -> None:
    tight = asked(ObjectivesConfig(**{name: 1e-6}))
    assert isinstance(tight, Infeasible)
    assert tight.reached is not None
    assert isinstance(asked(ObjectivesConfig(**{name: tight.reached * 1.0001})), Plan)


def test_a_p99_objective_is_met_in_simulation() -> None:
    free = planned(SMALL)
    p99 = free.simulated["ttft_s_p99"] * 0.9
    plan = asked(ObjectivesConfig(ttft_p99_s=p99))
    assert isinstance(plan, Plan)
    assert plan.simulated["ttft_s_p99"] <= p99
    assert plan.schedule.qps_per_chip <= free.schedule.qps_per_chip


def test_a_pool_without_room_is_a_result() -> None:
    # Decode is always apart, so one chip is not enough.
    pool = replace(rago_pool(), min_chips=1, max_chips=1)
    found = make_plan(case2("llama-3-8b", 1000), pool)
    assert isinstance(found, Infeasible)
    assert found.binding == "max_accelerators"


def test_a_model_that_fits_nowhere_names_its_stage() -> None:
    pool = rago_pool()
    tiny = pool.changed(lambda d: replace(d, memory_bytes=1e6) if isinstance(d, Accelerator) else d)
    with pytest.raises(InvalidInput, match=r"prefill does not fit|rewrite_prefill does not fit"):
        make_plan(SMALL, tiny)


def test_a_database_larger_than_the_pools_memory_names_it() -> None:
    pool = replace(rago_pool(), min_chips=1, max_chips=32)
    with pytest.raises(InvalidInput, match="retrieval does not fit"):
        make_plan(SMALL, pool)


def test_the_binding_group_is_full_and_no_other_is_fuller() -> None:
    plan = planned(case4("llama-3-8b"))
    assert binding(plan).utilisation == pytest.approx(1.0)
    assert all(load.utilisation <= 1.0 for load in loads(plan))
    assert loads(plan)[-1].stages == ("decode",)


def test_more_of_what_binds_helps_and_more_of_the_rest_does_not_hurt() -> None:
    plan = planned(SMALL)
    gains = {m.resource: m.gain_pct for m in marginals(plan, SearchSpace())}
    assert gains["10 % more memory bandwidth per host"] == pytest.approx(10.0, abs=0.1)
    assert min(gains.values()) > -1e-6


def test_the_runner_up_is_worse_and_says_by_how_much() -> None:
    plan = planned(SMALL)
    second = runner_up(plan)
    assert second is not None
    assert second[0].qps_per_chip < plan.schedule.qps_per_chip
    assert "lower" in second[1]


def test_every_chip_count_is_at_least_as_good() -> None:
    powers = planned(case1("llama-3-70b"))
    every = make_plan(case1("llama-3-70b"), rago_pool(), space=SearchSpace(counts=Counts.EVERY))
    assert isinstance(every, Plan)
    assert every.schedule.qps_per_chip >= powers.schedule.qps_per_chip * 1.1


def test_a_plan_file_round_trips(tmp_path: Path) -> None:
    plan = planned(SMALL)
    write_plan(plan, tmp_path / "plan.yaml")
    stored = read_plan(tmp_path / "plan.yaml")
    assert stored.accelerators == plan.schedule.chips
    assert stored.predicted["ttft_s"] == plan.schedule.ttft_s
    assert stored.stages["decode"][1] == plan.schedule.choices[-1].batch


def test_two_runs_give_the_same_plan_byte_for_byte() -> None:
    texts = {yaml.safe_dump(plan_document(planned(case4("llama-3-8b")))) for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("version: 1", "version: 9", "version"),
        ("batch:", "size:", "groups.0.stages.0.size"),
        ("qps:", "rate:", "predicted.rate"),
        ("groups:", "parts:", "parts"),
    ],
)
def test_a_bad_plan_file_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    path = tmp_path / "plan.yaml"
    write_plan(planned(SMALL), path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_plan(path)
    assert caught.value.field == field


def test_plan_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no plan file"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="cannot write"):
        write_plan(planned(SMALL), tmp_path / "no" / "plan.yaml")
