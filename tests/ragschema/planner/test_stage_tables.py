"""Stage tables from files: what is read, and how a mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.planner.exhaustive import exhaustive
from ragschema.planner.problem import Sharing
from ragschema.planner.search import search
from ragschema.planner.stage_tables import problem_from_tables, read_limits
from ragschema.planner.stages import StageKind

HEADER = "stage,num_resource,resource,batch_size,latency_s\n"
ROWS = """decode,1,chips,1,4.0
decode,1,chips,2,4.0
decode,2,chips,2,2.5
prefill,1,chips,1,0.5
prefill,2,chips,2,0.6
retrieval,1,servers,1,0.2
retrieval,1,servers,2,0.3
"""
LIMITS = {
    "max_batch_size_request": 2,
    "min_num_chips": 1,
    "max_num_chips": 8,
    "max_num_chips_per_stage": 2,
    "placement_policy": "disaggregated",
    "scheduling_policy": "continuous-batching",
}


def files(folder: Path, rows: str = ROWS, limits: object = LIMITS) -> tuple[Path, Path]:
    table, limit = folder / "tables.csv", folder / "limits.json"
    table.write_text(HEADER + rows, encoding="utf-8")
    limit.write_text(json.dumps(limits), encoding="utf-8")
    return table, limit


def test_a_small_table_by_hand(tmp_path: Path) -> None:
    table, limit = files(tmp_path)
    problem = problem_from_tables(table, read_limits(limit))
    assert [s.name for s in problem.stages] == ["retrieval", "prefill", "decode"]
    # 1 server needs 4 chips at least, so 4 = 2 + 2 with batch 2; batch 1 leaves 3 chips.
    (only,) = search(problem).points
    assert (only.ttft_s, only.qps, only.chips) == (pytest.approx(0.9), pytest.approx(0.8), 4)
    assert exhaustive(problem).points == (only,)


def test_limits_may_stand_inside_a_report(tmp_path: Path) -> None:
    _, limit = files(tmp_path, limits={"sweep_kw": LIMITS, "result": {"rows": 3}})
    assert read_limits(limit).sharing is Sharing.NONE


def test_only_allowed_chips_are_tried(tmp_path: Path) -> None:
    table, limit = files(tmp_path, limits={**LIMITS, "possible_num_chips": {"prefill": [2]}})
    problem = problem_from_tables(table, read_limits(limit))
    prefill = next(s for s in problem.stages if s.name == "prefill")
    assert (prefill.counts, prefill.kind) == ((2,), StageKind.CHIP)


@pytest.mark.parametrize(
    ("rows", "field", "message"),
    [
        ("prefil,1,chips,1,0.5\n", "stage", "line 2: 'prefil' is no stage"),
        ("prefill,one,chips,1,0.5\n", "num_resource", "'one' is no size"),
        ("prefill,1,chips,0,0.5\n", "batch_size", "'0' is no size"),
        ("prefill,1,chips,1,\n", "latency_s", "'' is no latency"),
        ("prefill,1,chips,1,-2\n", "latency_s", "'-2' is no latency"),
        ("prefill,1,chips,1,inf\n", "latency_s", "'inf' is no latency"),
        ("prefill,1,chips,1,1\nprefill,1,chips,1,2\n", "stage_tables", "line 3: .* two latencies"),
        ("prefill,1,boards,1,1\n", "resource", "runs on boards"),
        ("prefill,64,chips,1,1\ndecode,1,chips,1,1\n", "limits", "leave nothing of prefill"),
        ("prefill,1,chips,1,1\n", "stages", "decode must be the last"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: str, field: str, message: str) -> None:
    table, limit = files(tmp_path, rows)
    with pytest.raises(InvalidInput, match=message) as caught:
        problem_from_tables(table, read_limits(limit))
    assert caught.value.field == field


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    table, limit = files(tmp_path)
    table.write_text("stage,resource\nprefill,chips\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="no column 'num_resource'"):
        problem_from_tables(table, read_limits(limit))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_num_chips": 0}, "max_num_chips"),
        ({"max_num_chips": "many"}, "max_num_chips"),
        ({"placement_policy": "spread"}, "placement_policy"),
        ({"max_batch_size_request": None}, "max_batch_size_request"),
    ],
)
def test_bad_limits_are_named(tmp_path: Path, change: dict[str, object], field: str) -> None:
    _, limit = files(tmp_path, limits={**LIMITS, **change})
    with pytest.raises(InvalidInput) as caught:
        read_limits(limit)
    assert caught.value.field == field


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no limits file"):
        read_limits(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInput, match="not JSON"):
        read_limits(tmp_path / "bad.json")
