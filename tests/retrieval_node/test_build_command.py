"""The builder as a process: its output, its exit code, and being killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ragschema.storage.blockfile import read_blockfile
from tests.retrieval_node.making import clustered


def _write_spec(tmp_path: Path, rows: int = 1200, **changes: object) -> Path:
    np.save(tmp_path / "v.npy", clustered(rows, 16, 1))
    (tmp_path / "c").mkdir(exist_ok=True)
    spec = {
        "collection_dir": str(tmp_path / "c"),
        "segment_id": "seg-000001",
        "row_start": 0,
        "vectors": str(tmp_path / "v.npy"),
        "metric": "l2",
        "num_shards": 2,
        "index": {"train": {"id": "idx-000001", "nlist": 8, "m": 4, "seed": 1, "refine": True}},
        "refine": True,
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec | changes))
    return path


def _command(spec: Path) -> list[str]:
    return [sys.executable, "-m", "retrieval_node", "build", str(spec)]


def _run(spec: Path) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(_command(spec), capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_and_run_again(tmp_path: Path) -> None:
    spec = _write_spec(tmp_path)
    with subprocess.Popen(_command(spec), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("phase") == "write":
                break
        process.kill()
    code, lines = _run(spec)
    assert code == 0
    result = lines[-1]["result"]
    assert result["rows_per_shard"] == [600, 600]
    assert result["index"]["nlist"] == 8
    assert {line["phase"] for line in lines[:-1]} == {"train", "encode", "write"}
    for path in result["shards"]:
        read_blockfile(tmp_path / "c" / path, "shard")
    assert not list((tmp_path / "c").rglob("*.tmp"))


def test_two_builders_at_once(tmp_path: Path) -> None:
    """One is refused, or both succeed in turn; never a mixture."""
    index = {"train": {"id": "idx-000001", "nlist": 8, "m": 4, "measure": False}}
    specs = []
    for number in (1, 2):
        segment = f"seg-{number:06d}"
        path = _write_spec(tmp_path, index=index, segment_id=segment, row_start=1200 * number)
        specs.append(path.rename(tmp_path / f"spec{number}.json"))
    processes = [
        subprocess.Popen(_command(spec), stdout=subprocess.PIPE, text=True) for spec in specs
    ]
    last = [json.loads(p.communicate(timeout=120)[0].splitlines()[-1]) for p in processes]
    assert any("result" in line for line in last)
    for spec, process, line in zip(specs, processes, last, strict=True):
        if process.returncode:
            assert line["error"]["type"] == "conflict"
            assert line["error"]["hint"]
            code, lines = _run(spec)
            assert code == 0
            line = lines[-1]
        for path in line["result"]["shards"]:
            assert len(read_blockfile(tmp_path / "c" / path, "shard").arrays["ids"]) == 600


def test_an_error_is_the_last_line(tmp_path: Path) -> None:
    index = {"train": {"id": "idx-000001", "m": 5}}
    code, lines = _run(_write_spec(tmp_path, 50, index=index))
    assert code == 1
    error = lines[-1]["error"]
    assert error["type"] == "invalid_input"
    assert error["field"] == "index.train.m"
    assert error["hint"]
