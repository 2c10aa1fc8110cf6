"""ragrig ingest around a stand-in ingestion: spec, exit codes, a running rig, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.app import run
from tests.coordinator.cli.helpers import COLLECTION, claimed_rig, serving
from tests.coordinator.supervisor.helpers import alive, wait_for

REPO = Path(__file__).resolve().parents[3]
MODULE = "tests.coordinator.cli.stand_in_ingest"
RIG = """
data_dir: data
llm_nodes: [{name: far, address: "10.0.0.9:1"}]
retrieval_nodes: [{name: a}, {name: b}, {name: c}]
"""
SUMMARY: dict[str, Any] = {
    "added": 1,
    "updated": 0,
    "unchanged": 2,
    "deleted": 0,
    "skipped": [{"path": "x\x1b.pdf", "reason": "encrypted"}],
    "chunks": 4,
    "live_rows": 9,
    "generation": 3,
    "index": "exact",
    "notes": ["below 1000 vectors the collection keeps exact vectors"],
    "seconds": 1.5,
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("coordinator.supervisor.ingestion._MODULE", MODULE)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("STAND_IN_SPEC", str(tmp_path / "spec"))
    (tmp_path / "rig.yaml").write_text(RIG)
    (tmp_path / "doc.txt").write_text("text")
    return tmp_path


def ending(monkeypatch: pytest.MonkeyPatch, line: Any, code: int) -> None:
    monkeypatch.setenv("STAND_IN_END", json.dumps({"line": line, "code": code}))


ARGV = ["ingest", "doc.txt", "--collection", "docs", "-c", "rig.yaml"]


@pytest.mark.parametrize("code", [0, 1])
def test_summary_and_exit_code_of_the_ingestion(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    ending(monkeypatch, {"summary": SUMMARY}, code)
    options = ["--metric", "l2", "--nlist", "8", "--m", "16", "--chunk-tokens", "64"]
    assert run([*ARGV, *options, "--strict", "--no-prune", "--recall", "0.9"]) == code
    shown = capsys.readouterr()
    for part in ("documents unchanged", "skipped x.pdf: encrypted", "note: below 1000"):
        assert part in shown.out
    assert "embed" in shown.err
    spec = json.loads((stand_in / "spec").read_text())
    assert spec["data_dir"] == str(stand_in / "data")
    assert spec["sources"] == [str(stand_in / "doc.txt")]
    assert spec["llm_address"] == "10.0.0.9:1"
    assert (spec["metric"], spec["nlist"], spec["m"]) == ("l2", 8, 16)
    assert (spec["num_shards"], spec["strict"], spec["prune"]) == (3, True, False)
    assert spec["chunking"] == {"tokens": 64, "overlap": 16}
    assert spec["recall"] == 0.9


def test_reported_error_is_shown(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"type": "conflict", "message": "somebody ingests", "field": None, "hint": "wait"}
    ending(monkeypatch, {"error": error}, 1)
    assert run(ARGV) == 1
    assert "error: somebody ingests\nhint: wait\n" in capsys.readouterr().err


def test_silent_death_shows_the_last_words(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, None, 7)
    assert run(ARGV) == 1
    shown = capsys.readouterr().err
    assert "ended with code 7" in shown
    assert "last words" in shown
    assert "the collection is as it was" in shown


def test_waits_for_the_running_rig(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, {"summary": SUMMARY}, 0)
    path = ("GET", "/v1/collections/docs")
    with serving({path: (200, COLLECTION)}) as fake, claimed_rig(stand_in / "data", fake.url):
        assert run(ARGV) == 0
    assert f"served at {fake.url}" in capsys.readouterr().out
    spec = json.loads((stand_in / "spec").read_text())
    assert spec["llm_address"] == "127.0.0.1:1", "the running rig's embedder is used"
    assert spec["num_shards"] == 2, "the running rig decides, not the file"


def test_rig_that_went_away_does_not_spoil_the_ingestion(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(monkeypatch, {"summary": SUMMARY}, 0)
    with claimed_rig(stand_in / "data", "http://127.0.0.1:9"):
        assert run(ARGV) == 0
    assert "does not serve it yet: no rig is running" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_the_ingestion_too(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("STAND_IN_END", json.dumps({"sleep": True}))
    code = (
        "import sys\nimport coordinator.supervisor.ingestion as i\n"
        f"i._MODULE = {MODULE!r}\n"
        f"from coordinator.cli.app import run\nsys.exit(run({ARGV!r}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=stand_in, env=dict(os.environ), start_new_session=True
    )
    marker = stand_in / "spec.pid"
    wait_for(lambda: marker.exists() and marker.read_text() != "", "the ingestion runs")
    child = int(marker.read_text())
    assert alive(child)
    process.send_signal(number)
    assert process.wait(30) == (-number if number is signal.SIGKILL else 130)
    wait_for(lambda: not alive(child), "the ingestion ended")
