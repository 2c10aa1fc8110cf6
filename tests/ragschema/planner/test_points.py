"""What a plan promises at several loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragschema.planner.assemble import SearchSpace
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import read_plan, write_plan
from ragschema.planner.points import LOADS, points
from ragschema.pool import load_pool
from ragschema.workload import load_schema

ROOT = Path(__file__).resolve().parents[3]


def planned() -> Plan:
    plan = make_plan(
        load_schema(ROOT / "examples" / "schemas" / "chatbot.yaml"),
        load_pool(ROOT / "examples" / "pools" / "gpus.yaml"),
        space=SearchSpace(max_batch=8, max_decode_batch=64),
    )
    assert isinstance(plan, Plan)
    return plan


def test_every_load_has_its_figures() -> None:
    plan = planned()
    found = points(plan)
    assert [point["load"] for point in found] == list(LOADS)
    stages = {f"stage_s.{choice.stage}" for choice in plan.schedule.choices}
    for point in found:
        assert point["arrivals_per_s"] == pytest.approx(point["load"] * plan.schedule.qps)
        assert stages <= set(point)
        assert all(value > 0 for value in point.values())
        assert point["ttft_s_p50"] <= point["ttft_s_p99"] <= point["e2e_s_p99"]
        # A mean is the sum of its stages' means.
        before = sum(point[s] for s in stages if s != "stage_s.decode")
        assert before < point["ttft_s_p99"]
    waits = [point["ttft_s_p99"] for point in found]
    assert waits[-1] >= min(waits)


def test_the_plan_file_keeps_them(tmp_path: Path) -> None:
    plan = planned()
    write_plan(plan, tmp_path / "plan.yaml")
    stored = read_plan(tmp_path / "plan.yaml")
    assert list(stored.points) == points(plan)
    assert stored.requests == {"question": 64.0, "prompt": 1500.0, "output": 300.0}
