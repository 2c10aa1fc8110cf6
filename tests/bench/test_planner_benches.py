"""The planner's benchmarks on little data: what they compare and how they count."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from bench.planner_problems import random_problem
from bench.planner_search import _draw, equal, fuzz
from bench.rago_artifact import compare, runs_below
from ragschema.errors import InvalidInput
from ragschema.planner.exhaustive import candidates, count_candidates, exhaustive
from ragschema.planner.frontier import frontier_of

TABLES = """stage,num_resource,resource,batch_size,latency_s
prefill,1,chips,1,0.5
prefill,2,chips,1,0.3
decode,1,chips,1,1.0
"""
LIMITS = {
    "max_batch_size_request": 1,
    "min_num_chips": 1,
    "max_num_chips": 4,
    "max_num_chips_per_stage": 2,
}


def run_folder(folder: Path, frontier: str) -> Path:
    run = folder / "small"
    run.mkdir()
    (run / "stage_latency_tables.csv").write_text(TABLES, encoding="utf-8")
    (run / "inputs.json").write_text(json.dumps(LIMITS), encoding="utf-8")
    (run / "frontier.csv").write_text("latency_s_ttft,qps_per_chip\n" + frontier, encoding="utf-8")
    return run


@pytest.mark.parametrize(
    ("frontier", "same"),
    [
        (f"0.3,{1 / 3}\n0.5,0.5\n0.5,0.5\n", True),
        (f"0.3,{1 / 3 + 1e-6}\n0.5,0.5\n", False),
        ("0.5,0.5\n", False),
    ],
)
def test_frontiers_are_compared_point_by_point(tmp_path: Path, frontier: str, same: bool) -> None:
    run_folder(tmp_path, frontier)
    (run,) = runs_below(tmp_path)
    assert compare(run)["identical"] is same


def test_a_run_without_a_frontier_is_not_compared(tmp_path: Path) -> None:
    (run_folder(tmp_path, "") / "frontier.csv").unlink()
    assert compare(tmp_path / "small")["identical"] is None


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder with"):
        runs_below(tmp_path)


@pytest.mark.parametrize("seed", range(30))
def test_candidates_are_counted_without_making_them(seed: int) -> None:
    problem = random_problem(seed)
    assert count_candidates(problem) == sum(1 for _ in candidates(problem))


def test_drawn_candidates_are_among_all() -> None:
    problem = next(p for p in map(random_problem, range(99)) if not p.uniform_batch)
    every = set(candidates(problem))
    rng = random.Random(1)
    drawn = {_draw(problem, rng) for _ in range(200)}
    assert drawn <= every
    assert len(drawn) > 5


def test_equality_sees_a_missing_point() -> None:
    assert fuzz(5)
    several = (exhaustive(random_problem(seed)) for seed in itertools.count())
    frontier = next(f for f in several if len(f.points) > 1)
    assert equal(frontier, frontier)
    assert not equal(frontier, frontier_of(frontier.points[1:]))
