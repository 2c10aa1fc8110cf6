"""From a plan to what runs: asked from the nodes, not from the plan."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import yaml

from ragschema.here import this_machine
from ragschema.planner.plan_file import read_plan
from ragschema.profile import FORMAT, Profile, write_profile
from ragschema.wire import llm_pb2, llm_pb2_grpc
from tests.e2e.corpus import animal_documents
from tests.e2e.rigs import RAGRIG, RunningRig, create_collection, running_rig
from tests.ragschema.profiles import role


def made_up_profile() -> Profile:
    """Of this machine with one thread, for a model in a folder named writer."""
    sizes = {"batch": [1, 2, 4, 8], "tokens": [16, 2048]}
    roles = (
        role("prefill", "hf:writer", sizes, lambda batch, tokens: 1e-4 * batch * tokens,
             ("batch*tokens",)),
        role("decode", "hf:writer", sizes, lambda batch, tokens: 0.01 + 0.001 * batch,
             ("1", "batch")),
        role("pq_scan", "simd", {"batch": [1, 64], "codes": [1, 1e6]},
             lambda batch, codes: 1e-4 + 1e-9 * codes, ("1", "codes")),
    )  # fmt: skip
    one = tuple(r.__class__(**{**vars(r), "threads": 1}) for r in roles)
    return Profile(FORMAT, this_machine(), one)


def schema(models: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "zoo",
        "generator": {"model": str(models / "writer" / "config.json"), "weights": "fp32"},
        "lengths": {"question": 16, "prompt": 200, "output": 24},
        "database": {"vectors": 1000, "dims": 32, "bytes_per_vector": 8, "index": "ivfpq",
                     "nlist": 16, "scan_share": 0.25},
        "objectives": {"load": 0.5},
    }  # fmt: skip


def rig(models: Path) -> dict[str, Any]:
    return {
        "name": "planned",
        "coordinator": {"port": 0},
        "llm_nodes": [
            {
                "name": "hf",
                "embedder": str(models / "reader"),
                "generator": f"hf:{models / 'writer'}",
            }
        ],
        "retrieval_nodes": [{"name": "ret", "backend": "simd"}],
    }  # fmt: skip


def planned(folder: Path, models: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema(models)))
    write_profile(made_up_profile(), folder / "profile.json")
    return subprocess.run(
        [str(RAGRIG), "plan", "schema.yaml", "--pool", "local", "--profile", "profile.json",
         "--decode", "together", "--out", "plan.yaml", *more],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip


def test_what_runs_is_what_the_plan_says(tmp_path: Path, models: Path) -> None:
    done = planned(tmp_path, models)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = read_plan(tmp_path / "plan.yaml")
    cores, decode_batch, _ = plan.stages["decode"]
    with running_rig(tmp_path, rig(models), "--plan", str(tmp_path / "plan.yaml")) as running:
        with grpc.insecure_channel(running.node("llm-0")["address"]) as channel:
            status = llm_pb2_grpc.LlmNodeStub(channel).Status(
                llm_pb2.LlmStatusRequest(), timeout=20
            )
        found = {llm_pb2.Role.Name(model.role) for model in status.models}
        assert {"ROLE_EMBED", "ROLE_GENERATE"} <= found
        process = psutil.Process(running.node("llm-0")["pid"])
        command = process.cmdline()
        # A prompt is read while a full batch of answers is being written.
        assert command[command.index("--max-running") + 1] == str(decode_batch + 1)
        assert command[command.index("--threads") + 1] == str(cores)
        assert len(process.cpu_affinity()) == cores
        assert len([n for n in running.state["nodes"] if n["kind"] == "retrieval"]) == 1
        resolved = yaml.safe_load((running.data_dir / "run" / "rig.resolved.yaml").read_text())
        stages = resolved["coordinator"]["stages"]
        assert stages["generate"]["max_concurrent"] == decode_batch + 1
        assert stages["retrieve"]["max_batch"] == plan.stages["retrieval"][1]
        create_collection(running, "zoo", animal_documents())
        with running.client() as client:
            body = {"collection": "zoo", "question": "what does a cat do", "max_tokens": 8}
            answer = client.post("/v1/query", json=body).raise_for_status().json()
        assert answer["usage"]["completion_tokens"] == 8
        checked(running)


def checked(running: RunningRig) -> None:
    """The figures of the profile are made up: only a boundless tolerance lets them pass."""
    options = ("plan.yaml", "--loads", "0.3,full", "--requests", "6", "--json")
    for tolerance, code in (("1e9", 0), ("0.1", 1)):
        done = running.command(
            "plan", "check", *options, "-c", "rig.yaml", "--tolerance", tolerance
        )
        assert done.returncode == code, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["passed"] is (code == 0)
        names = {line["what"] for line in found["lines"]}
        assert {"ttft_s p50", "stage retrieval", "stage prefill", "stage decode", "qps"} <= names
        assert all(line["measured"] >= 0 for line in found["lines"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("accelerators: 1", "accelerators: 4096", "cores"),
        ("device: local-core", "device: h100-sxm", "h100-sxm"),
        ("name: decode", "name: encode", "encode"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, models: Path, old: str, new: str, said: str
) -> None:
    assert planned(tmp_path, models).returncode == 0
    path = tmp_path / "plan.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"data_dir": "data", **rig(models)}))
    done = subprocess.run(
        [str(RAGRIG), "up", "-c", "rig.yaml", "--plan", "plan.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
    assert not (tmp_path / "data" / "run").exists()
