"""``ragrig plan export`` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coordinator.cli.app import run


def test_the_default_rig_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "export", "--to", "kubernetes", "--out", "k.yaml", "--storage", "7"]) == 0
    assert capsys.readouterr().out == ""
    found = list(yaml.safe_load_all(Path("k.yaml").read_text()))
    assert "7Gi" in str(found)
    assert run(["plan", "export", "--to", "compose", "--port", "81"]) == 0
    services = yaml.safe_load(capsys.readouterr().out)["services"]
    assert set(services) == {"coordinator", "llm-0", "ret-0", "ret-1"}
    assert services["coordinator"]["ports"] == ["127.0.0.1:81:8080"]
    assert run(["plan", "export", "--to", "ray", "--machines", "a,b", "--ssh-user", "me"]) == 0
    cluster = yaml.safe_load(capsys.readouterr().out)
    assert (cluster["provider"]["worker_ips"], cluster["auth"]) == (["b"], {"ssh_user": "me"})


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--to", "compose", "--image", "A b"], "no image"),
        (["--to", "ray", "--machines", "a", "--image", "A b"], "no image"),
        (["--to", "ray"], "machines are named"),
        (["none.yaml", "--to", "compose"], "no plan file none.yaml"),
        (["--to", "compose", "-c", "none.yaml"], "no rig file none.yaml"),
        (["--to", "compose", "--out", "no/such/f.yaml"], "cannot write"),
    ],
)
def test_failures_are_named(argv: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "export", *argv]) == 1
    assert part in capsys.readouterr().err


def test_an_unknown_engine_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "export", "--to", "swarm"]) == 2
    assert "--to" in capsys.readouterr().err
