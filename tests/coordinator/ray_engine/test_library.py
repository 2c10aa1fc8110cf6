"""Ray as a library that may be missing, or have nobody to talk to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.cli.app import run
from coordinator.ray_engine.library import connected, load_ray
from ragschema.errors import Unavailable

OPTIONS = ["up", "-c", "rig.yaml", "--engine", "ray"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rig = {"data_dir": "data", "coordinator": {"port": 0}}
    Path("rig.yaml").write_text(yaml.safe_dump(rig))


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(OPTIONS) == 1
    said = capsys.readouterr().err
    assert "Ray is not installed" in said
    assert "pip install 'ragrig[ray]'" in said
    assert not Path("data").exists(), "nothing was started"


def test_live_replanning_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*OPTIONS, "--replan", "auto"]) == 1
    assert "replan" in capsys.readouterr().err


def test_ray_is_told_to_keep_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    load_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


class NoCluster:
    """Ray's module where nobody answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def init(self, **options: Any) -> None:
        self.asked.append(options)
        if options["address"] != "local":
            raise ConnectionError("nobody there")

    def shutdown(self) -> None:
        self.asked.append({})


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.ray_engine.library.load_ray", NoCluster)
    with pytest.raises(Unavailable, match=r"10\.0\.0\.1:1: nobody there"), connected("10.0.0.1:1"):
        pass


def test_without_a_cluster_one_is_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    module = NoCluster()
    monkeypatch.setattr("coordinator.ray_engine.library.load_ray", lambda: module)
    with connected(None, {"fpga": 1.0}) as connection:
        assert connection.ray is module
        assert connection.alone, "so that nodes listen on loopback"
    found, own, closed = module.asked
    assert (found["address"], own["address"], closed) == ("auto", "local", {})
    assert own["include_dashboard"] is False
    assert own["resources"] == {"fpga": 1.0}
