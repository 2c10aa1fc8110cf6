"""This machine as a pool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragschema.errors import IncompatibleRequest
from ragschema.local import CORE, NODE, local_pool
from ragschema.planner.assemble import SearchSpace, problem_of
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.problem import Decoding
from ragschema.profile import Profile
from ragschema.workload import parse_schema
from tests.ragschema.profiles import MACHINE, profile, role

SCHEMA = """
version: 1
name: small
generator: {model: qwen2.5-0.5b}
lengths: {prompt: 300, output: 50}
"""


def threads(count: int, seconds: float) -> Profile:
    sizes = {"batch": [1, 8], "tokens": [64, 1024]}
    found = [
        role("prefill", "qwen2.5-0.5b", sizes, lambda batch, tokens: seconds * batch, ("batch",)),
        role("decode", "qwen2.5-0.5b", sizes, lambda batch, tokens: seconds / 10, ("1",)),
    ]
    return profile(*(replace(each, threads=count) for each in found))


def test_cores_and_the_machine_itself() -> None:
    pool = local_pool(MACHINE, None, False)
    assert [(c.device.name, c.count) for c in pool.chips] == [(CORE, 2)]
    assert [(n.device.name, n.count) for n in pool.nodes] == [(NODE, 1)]
    assert pool.max_chips == 2
    assert sum(c.device.memory_bytes * c.count for c in pool.chips) == 16 * 2**30


def test_n_cores_are_a_process_with_n_threads() -> None:
    both = replace(threads(1, 1.0), roles=threads(1, 1.0).roles + threads(2, 0.6).roles)
    pool = local_pool(MACHINE, both, False)
    space = SearchSpace(max_batch=8, max_decode_batch=8, decoding=Decoding.TOGETHER)
    problem = problem_of(parse_schema(SCHEMA, "s"), pool, space)
    prefill = problem.stages[0]
    assert prefill.latency_s[prefill.row(1), -1] == pytest.approx(8.0)
    assert prefill.latency_s[prefill.row(2), -1] == pytest.approx(4.8)


def test_threads_that_were_not_measured_are_not_planned() -> None:
    pool = local_pool(MACHINE, threads(1, 1.0), False)
    space = SearchSpace(max_batch=8, max_decode_batch=8, decoding=Decoding.TOGETHER)
    plan = make_plan(parse_schema(SCHEMA, "s"), pool, space=space)
    assert isinstance(plan, Plan)
    assert plan.schedule.chips == 1


def test_another_machines_profile_is_refused() -> None:
    with pytest.raises(IncompatibleRequest, match="another machine"):
        local_pool(replace(MACHINE, cpu="another"), threads(1, 1.0), False)
