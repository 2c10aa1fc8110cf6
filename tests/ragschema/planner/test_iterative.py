"""Retrievals during decode: the closed form against the simulator, and a whole plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.axes import Axis
from ragschema.planner.decoding import Iteration
from ragschema.planner.explain import binding, loads
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.iterative import Iterative
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.problem import Problem
from ragschema.planner.reproduce.rago import case1, rago_pool
from ragschema.planner.schedule import Schedule, StageChoice
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.stages import StageKind, StageTable
from ragschema.workload import ObjectivesConfig, RetrievalConfig
from tests.ragschema.planner.making import table

SMALL = SearchSpace(max_batch=16, max_decode_batch=256, max_iterative_batch=16)


def again(retrievals: int, **more: object) -> Plan:
    schema = replace(
        case1("llama-3-8b"), retrieval=RetrievalConfig(per_sequence=1 + retrievals, **more)
    )
    plan = make_plan(schema, rago_pool(), space=SMALL)
    assert isinstance(plan, Plan)
    return plan


@pytest.mark.parametrize(
    ("slots", "together", "retrievals", "later_s"),
    [(16, 4, 3, 0.1), (64, 16, 3, 0.1), (64, 32, 3, 0.05), (64, 8, 1, 0.2), (16, 12, 2, 0.1)],
)
def test_an_answer_takes_what_the_simulator_says(
    slots: int, together: int, retrievals: int, later_s: float
) -> None:
    prefill = table("prefill", {1: [1e-4]})
    batches = tuple(1 << i for i in range(slots.bit_length()))
    decode = StageTable("decode", StageKind.DECODE, (1,), batches, np.ones((1, len(batches))))
    problem = Problem((prefill, decode), 1, 2)
    choices = StageChoice("prefill", 1, 1), StageChoice("decode", 1, slots)
    schedule = Schedule(choices, ((0,),), 2, None, 1e-4, 1.0)
    requests = 60 * slots
    # Long enough for a batch to fill while many are in decode, not for ever at the end.
    policy = Policy(iteration=Iteration(retrievals, together, later_s, 5.0))
    played = simulate(problem, schedule, np.arange(requests) * 1e-9, policy, 100)
    middle = np.sort(played.end_s)[requests // 4 : 3 * requests // 4]
    answer_s = slots * (middle[-1] - middle[0]) / (len(middle) - 1)
    form = Iterative(retrievals, (together,))
    given = np.array(1.0), np.array(slots), np.array(later_s)
    assert float(form.answer_s(*given, together)) == pytest.approx(answer_s, rel=0.03)


def test_more_sequences_than_there_are_never_come_together() -> None:
    form = Iterative(2, (8,))
    assert form.answer_s(np.array(1.0), np.array(4), np.array(0.1), 8) == np.inf


@pytest.mark.parametrize(("retrievals", "batches"), [(0, (1,)), (1, ()), (1, (2, 2)), (1, (0, 1))])
def test_nonsense_is_refused(retrievals: int, batches: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        Iterative(retrievals, batches)


def test_every_retrieval_takes_its_share() -> None:
    once, four = again(0), again(3)
    assert once.schedule.iterative_batch is None
    assert four.schedule.iterative_batch is not None
    assert four.schedule.qps < once.schedule.qps / 2
    assert four.tpot_s > once.tpot_s
    assert binding(four).utilisation == pytest.approx(1.0)
    assert all(load.utilisation <= 1 + 1e-9 for load in loads(four))


def test_reading_nothing_costs_less() -> None:
    assert again(3, reads=0).schedule.qps_per_chip >= again(3).schedule.qps_per_chip


def test_a_tpot_objective_counts_the_stalls() -> None:
    free = again(3)
    schema = replace(free.schema, objectives=ObjectivesConfig(tpot_s=free.tpot_s * 0.9))
    strict = make_plan(schema, rago_pool(), space=SMALL)
    assert isinstance(strict, Plan)
    assert strict.tpot_s <= free.tpot_s * 0.9
    assert strict.schedule.qps_per_chip <= free.schedule.qps_per_chip


@pytest.mark.parametrize("tpot_s", [1e-7, 2e-4])
def test_a_tpot_out_of_reach_names_one_within(tpot_s: float) -> None:
    schema = again(3).schema
    tight = replace(schema, objectives=ObjectivesConfig(tpot_s=tpot_s))
    found = make_plan(tight, rago_pool(), space=SMALL)
    assert isinstance(found, Infeasible)
    assert found.binding == "objectives.tpot_s"
    assert found.reached is not None
    wide = replace(schema, objectives=ObjectivesConfig(tpot_s=found.reached * 1.0001))
    assert isinstance(make_plan(wide, rago_pool(), space=SMALL), Plan)


def test_tpot_as_an_axis_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no axis where answers retrieve again"):
        make_plan(again(1).schema, rago_pool(), space=SMALL, axes=(Axis.TTFT, Axis.TPOT))


def test_stages_without_a_way_back_have_no_later_latency() -> None:
    problem = problem_of(again(1).schema, rago_pool(), SMALL)
    assert [stage.later_s is not None for stage in problem.stages] == [True, True, False]
    alone = problem_of(again(1, reads=0).schema, rago_pool(), SMALL)
    assert [stage.later_s is not None for stage in alone.stages] == [True, False, False]
