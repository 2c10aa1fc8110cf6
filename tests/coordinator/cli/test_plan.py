"""``ragrig plan`` as a user types it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from coordinator.cli.app import run

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = str(ROOT / "examples" / "schemas" / "case1.yaml")
POOL = str(ROOT / "examples" / "pools" / "rago.yaml")

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


def test_a_plan_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", SCHEMA, "--pool", POOL, "--explain"]) == 0
    shown = capsys.readouterr().out
    for part in ("retrieval", "frontier", "qps_per_chip", "binding:", "gain:", "runner-up:"):
        assert part in shown


def test_a_plan_as_json_and_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.yaml"
    assert run(["plan", SCHEMA, "--pool", POOL, "--format", "json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["predicted"]["qps_per_chip"] == pytest.approx(16.27, abs=0.01)
    assert len(document["frontier"]) >= 2
    assert run(["plan", "compare", str(out), str(out)]) == 0
    assert "+0.0%" in capsys.readouterr().out


def test_stage_tables_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, limits = tmp_path / "t.csv", tmp_path / "l.json"
    table.write_text(TABLES, encoding="utf-8")
    limits.write_text(json.dumps(LIMITS), encoding="utf-8")
    argv = ["plan", "--stage-tables", str(table), "--limits", str(limits), "--format", "csv"]
    assert run(argv) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(float(r["ttft_s"]), float(r["qps_per_chip"])) for r in rows] == [
        (0.3, pytest.approx(1 / 3)),
        (0.5, pytest.approx(1 / 2)),
    ]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_frontier_is_drawn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"frontier.{suffix}"
    assert run(["plan", SCHEMA, "--pool", POOL, "--format", "csv", "--plot", str(path)]) == 0
    assert path.stat().st_size > 5_000


def test_nothing_feasible_says_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = tmp_path / "s.yaml"
    text = Path(SCHEMA).read_text(encoding="utf-8") + "objectives: {ttft_s: 0.0001}\n"
    schema.write_text(text, encoding="utf-8")
    assert run(["plan", str(schema), "--pool", POOL]) == 1
    shown = capsys.readouterr().err
    assert "objectives.ttft_s binds" in shown
    assert "smallest change: allow a TTFT" in shown
    assert run(["plan", str(schema), "--pool", POOL, "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["feasible"] is False


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["plan", SCHEMA], ["needs a workload and a pool"]),
        (["plan", "none.yaml", "--pool", POOL], ["no schema file none.yaml"]),
        (["plan", SCHEMA, "--pool", POOL, "--objective", "best"], ["max-qps-per-chip"]),
        (["plan", SCHEMA, "--pool", POOL, "--counts", "some"], ["pow2, every"]),
        (["plan", SCHEMA, "--pool", POOL, "--axes", "ttft"], ["two or three different axes"]),
        (["plan", SCHEMA, "--pool", POOL, "--axes", "ttft,speed"], ["qps_per_chip, cost"]),
        (["plan", SCHEMA, "--pool", POOL, "--time-limit", "0"], ["no time to search"]),
        (["plan", SCHEMA, "--pool", POOL, "--objective", "min-energy"], ["xpu-c", "no watts"]),
        (["plan", "what-if", SCHEMA, "--pool", POOL, "--vary", "x"], ["what to vary"]),
        (["plan", "--stage-tables", "x.csv"], ["go together"]),
        (["plan", "reproduce", "raga"], ["use rago"]),
        (["plan", SCHEMA, "--pool", POOL, "--format", "csv", "--plot", "x.gif"], [".svg or .html"]),
    ],
)
def test_mistakes_name_the_fix(
    argv: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    for part in parts:
        assert part in shown


def test_a_papers_figures_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "reproduce", "rago"]) == 0
    assert "2.47" in capsys.readouterr().out


def test_the_json_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "schema"]) == 0
    assert "generator" in json.loads(capsys.readouterr().out)["properties"]


GPUS = ["--pool", str(ROOT / "examples" / "pools" / "gpus.yaml"), "--objective", "min-cost"]
CHATBOT = str(ROOT / "examples" / "schemas" / "chatbot.yaml")


def test_a_page_holds_the_frontier_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    argv = ["plan", CHATBOT, *GPUS, "--axes", "ttft,tpot,cost", "--plot", str(path)]
    assert run([*argv, "--format", "csv"]) == 0
    page = path.read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    data = json.loads(page.split("const data = ")[1].split(";\n")[0])
    assert {"ttft_s", "tpot_s", "cost_per_1000"} <= set(data["axes"])
    assert len(data["rows"]) > 3
    assert data["rows"][0]["decode_device"] in ("h100-sxm", "l4")


def test_what_if_shows_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    varied = ["--vary", "objectives.qps=20,1.0e+7", "--vary", "cache.document_kv_hit=0.5"]
    assert run(["plan", "what-if", CHATBOT, *GPUS, *varied, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["value"] for row in rows] == ["", "20", "1.0e+7", "0.5"]
    assert rows[1] == rows[0] | {"key": "objectives.qps", "value": "20"}
    assert rows[2]["infeasible"].startswith("objectives.qps")
    assert rows[3]["cost_per_1000"] < rows[0]["cost_per_1000"]
    assert run(["plan", "what-if", CHATBOT, *GPUS, *varied]) == 0
    assert "nothing feasible" in capsys.readouterr().out


def test_robustness_is_shown_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", CHATBOT, *GPUS, "--robustness"]) == 0
    assert "the plan at other loads" in capsys.readouterr().out
    assert run(["plan", CHATBOT, *GPUS, "--robustness", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["robustness"]
    assert found["losses"]
    assert [at["load"] for at in found["loads"]][-1] == 1.2


def test_time_that_runs_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    case4 = str(ROOT / "examples" / "schemas" / "case4.yaml")
    assert run(["plan", case4, "--pool", POOL, "--time-limit", "0.1"]) == 0
    assert "time ran out" in capsys.readouterr().out
