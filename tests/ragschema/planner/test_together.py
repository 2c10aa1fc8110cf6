"""Decode on the chips of the stages before it: by hand, and against the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from ragschema.planner.arrivals import poisson
from ragschema.planner.assemble import SearchSpace
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.play import Candidate, answer_s, per_request_s, play
from ragschema.planner.problem import Decoding, Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import search
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.stages import StageKind
from ragschema.pool import parse_pool
from ragschema.workload import parse_schema
from tests.ragschema.planner.making import table

ONE_GPU = """
version: 1
accelerators: [{device: l4, count: 1}]
"""
ASSISTANT = """
version: 1
name: assistant
generator: {model: llama-3-8b, weights: int8}
lengths: {prompt: 512, output: 128}
"""


def beside(slots: int, batch: int = 1) -> tuple[Problem, Schedule]:
    """Prefill of 0.02 s a request beside decode of 1 s an answer."""
    prefill = table("prefill", {1: [0.02, 0.04, 0.08]})
    decode = table("decode", {1: [1.0] * slots.bit_length()}, StageKind.DECODE)
    problem = Problem((prefill, decode), 1, 1, decoding=Decoding.TOGETHER)
    schedule = play(problem, Candidate(((0, 1),), (1,), (batch,), 1, slots))
    assert schedule is not None
    return problem, schedule


def test_an_answer_waits_for_the_others_work() -> None:
    problem, schedule = beside(16)
    assert schedule.chips == 1
    assert answer_s(problem, schedule) == pytest.approx(1.0 + 16 * 0.02)
    assert schedule.qps == pytest.approx(16 / 1.32)
    assert per_request_s(problem, schedule, (0, 1)) == pytest.approx(1.32 / 16)
    assert schedule.ttft_s == pytest.approx(0.02)
    assert schedule.groups == ((0, 1),)


@pytest.mark.parametrize(("slots", "batch"), [(4, 1), (16, 1), (16, 4), (32, 4)])
def test_the_rate_is_what_the_simulator_sustains(slots: int, batch: int) -> None:
    problem, schedule = beside(slots, batch)
    requests = 80 * slots
    arrivals = np.arange(requests) * (1 / schedule.qps)
    played = simulate(problem, schedule, arrivals, Policy(), output=100)
    middle = np.sort(played.end_s)[requests // 4 : 3 * requests // 4]
    rate = (len(middle) - 1) / (middle[-1] - middle[0])
    assert rate == pytest.approx(schedule.qps, rel=0.03)


def test_decode_stands_still_meanwhile() -> None:
    problem, schedule = beside(4)
    # The second comes when the first has 0.1 s behind it.
    played = simulate(problem, schedule, np.array([0.0, 0.12]), Policy(), output=100)
    assert played.first_token_s == pytest.approx([0.02, 0.14])
    assert played.end_s[0] == pytest.approx(0.02 + 1.0 + 0.02)
    assert played.end_s[1] == pytest.approx(0.14 + 1.0)


def test_more_than_it_can_do_falls_behind() -> None:
    problem, schedule = beside(8)
    for load, steady in ((0.8, True), (1.3, False)):
        arrivals = poisson(load * schedule.qps, 2000, seed=3)
        waits = simulate(problem, schedule, arrivals, Policy(), output=100).wait_s["decode"]
        assert bool(waits[-200:].mean() < 1.0) == steady


def test_one_accelerator_is_enough() -> None:
    schema, pool = parse_schema(ASSISTANT, "a.yaml"), parse_pool(ONE_GPU, "p.yaml")
    for decoding in (Decoding.EITHER, Decoding.TOGETHER):
        plan = make_plan(schema, pool, space=SearchSpace(decoding=decoding))
        assert isinstance(plan, Plan)
        assert plan.schedule.chips == 1
        assert plan.problem.shares(plan.schedule.placement)
    apart = make_plan(schema, pool)
    assert not isinstance(apart, Plan)
    assert "--decode either" in apart.change


def test_either_is_never_worse_than_one_of_them() -> None:
    schema = parse_schema(ASSISTANT, "a.yaml")
    pool = parse_pool(ONE_GPU.replace("count: 1", "count: 8"), "p.yaml")
    best = {}
    for decoding in Decoding:
        plan = make_plan(schema, pool, space=SearchSpace(decoding=decoding))
        assert isinstance(plan, Plan)
        best[decoding] = plan.schedule.value
    assert best[Decoding.EITHER] == max(best.values())
    assert search(plan.problem).points
