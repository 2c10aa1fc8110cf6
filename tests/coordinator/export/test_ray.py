"""A cluster file that Ray's own validator accepts, and whose rig file reads back."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from coordinator.export.ray import Machines, ray_text
from coordinator.ray_engine.library import load_ray
from coordinator.ray_engine.placement import on_ray
from ragschema.errors import InvalidInput
from ragschema.rig import LlmNodeConfig, parse_rig
from tests.coordinator.export.test_export import IMAGE, RIG

HERE = Machines("10.0.0.1", ("10.0.0.2", "10.0.0.3"), "ops")


def exported() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ray_text(RIG, IMAGE, HERE))
    return found


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As ``ray up`` reads it: defaults filled in, and checked against Ray's schema."""
    load_ray()
    from ray.autoscaler._private.util import prepare_config, validate_config

    found: dict[str, Any] = prepare_config(config)
    validate_config(found)
    return found


def test_ray_accepts_it() -> None:
    config = prepared(exported())
    assert config["max_workers"] == 2
    assert config["provider"]["head_ip"] == "10.0.0.1"
    assert config["docker"]["image"] == IMAGE
    # And would not accept anything.
    with pytest.raises(jsonschema.ValidationError):
        prepared({**exported(), "machines": 3})
    with pytest.raises(jsonschema.ValidationError):
        prepared({**exported(), "docker": {"picture": IMAGE}})


def test_the_heads_rig_file_reads_back(tmp_path: Path) -> None:
    (command,) = exported()["head_setup_commands"]
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", command], env=home, timeout=30, check=True)
    rig = parse_rig((tmp_path / "rig.yaml").read_text(), "rig.yaml", Path("/"))
    assert rig.data_dir == "/data"
    assert rig.llm_nodes[0].embedder == "/models/mini"
    assert [n.address for n in rig.llm_nodes] == [None, None, None, "10.0.0.9:7000"]
    assert rig.retrieval_nodes[0].cpus == (), "those are of this machine"
    assert on_ray(rig) == rig


def test_a_name_is_no_command(tmp_path: Path) -> None:
    odd = replace(RIG, llm_nodes=(LlmNodeConfig("a", embedder="/m/$(touch x)'; touch y'"),))
    (command,) = yaml.safe_load(ray_text(odd, IMAGE, HERE))["head_setup_commands"]
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", command], env=home, cwd=tmp_path, timeout=30, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["rig.yaml"]


def test_secrets_are_named_and_never_written() -> None:
    docker = exported()["docker"]
    assert "--env=UP" in docker["run_options"]
    assert docker["head_run_options"] == ["--volume=/home/me/key:/run/secrets/ragrig-api-key:ro"]
    assert "--volume=/srv/data:/data" in docker["run_options"]
    assert "--volume=/models/a/mini:/models/mini:ro" in docker["run_options"]


def test_ray_tells_nobody_and_starts_no_dashboard() -> None:
    config = exported()
    starts = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert all("RAY_USAGE_STATS_ENABLED=0" in command for command in starts)
    assert "--include-dashboard=false" in shlex.split(starts[0])
    head = ray_text(RIG, IMAGE, HERE).splitlines()[0]
    assert head.endswith("take 8 CPU."), "a comment says what the nodes need"


@pytest.mark.parametrize(
    ("typed", "user", "said"),
    [
        (None, "ops", "machines are named"),
        ("a,a", "ops", "each once"),
        ("a,b c", "ops", "'b c' is no host"),
        ("a,-oProxyCommand=x", "ops", "is no host"),
        ("a", "o p", "'o p' is no user"),
    ],
)
def test_machines_that_are_none(typed: str | None, user: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Machines.parsed(typed, user)


def test_one_machine_is_a_cluster_too() -> None:
    assert Machines.parsed(" a.local ", "ops") == Machines("a.local", (), "ops")
    assert (
        prepared(yaml.safe_load(ray_text(RIG, IMAGE, Machines("a", (), "o"))))["max_workers"] == 0
    )
