"""The coordinator as a process: its command line, its start, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from coordinator.__main__ import main
from coordinator.rest.serving import bind
from ragschema.errors import InvalidInput, Unavailable


def rig_file(tmp_path: Path, **coordinator: object) -> Path:
    """A rig whose nodes are away: the coordinator has to live with that."""
    path = tmp_path / "rig.yaml"
    node = {"address": "127.0.0.1:1"}
    rig = {
        "data_dir": "data",
        "coordinator": {"port": 0, **coordinator},
        "llm_nodes": [{"name": "llm-0", **node}],
        "retrieval_nodes": [{"name": "ret-0", **node}, {"name": "ret-1", **node}],
    }
    path.write_text(yaml.safe_dump(rig), encoding="utf-8")
    return path


@contextmanager
def running(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    ready = tmp_path / "ready"
    argv = [sys.executable, "-m", "coordinator", "--rig", str(rig_file(tmp_path))]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*argv, "--ready-file", str(ready), *options], stderr=log, stdout=log, text=True
        )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ready.exists(), (tmp_path / "log").read_text()
        said = json.loads(ready.read_text())
        assert said["pid"] == process.pid
        assert said["name"] == "coordinator"
        yield process, f"http://{said['address']}"
    finally:
        process.kill()
        process.wait()


def test_it_serves_without_nodes_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    with running(tmp_path, "--parent-pid", str(os.getpid())) as (process, url):
        assert httpx.get(f"{url}/healthz").status_code == 200
        ready = httpx.get(f"{url}/readyz")
        assert ready.status_code == 503
        assert "role embed" in ready.json()["error"]["message"]
        assert httpx.get(f"{url}/v1/collections").json() == {"collections": []}
        search = httpx.post(f"{url}/v1/search", json={"collection": "docs", "text": "x"})
        assert search.status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_ctrl_c_is_a_clean_end_too(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_key_closes_the_server(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("open-sesame\n")
    key.chmod(0o600)
    with running(tmp_path, "--api-key-file", str(key)) as (_, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"authorization": "Bearer open-sesame"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
    assert "open-sesame" not in (tmp_path / "log").read_text()


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code not in (0, None)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_wide_address_without_a_key_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(capsys, "--rig", str(rig_file(tmp_path, host="0.0.0.0")))
    assert "--api-key-file" in said


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failed(capsys, "serve", "--rig", str(rig_file(tmp_path, port=port)))
    assert f"127.0.0.1:{port}" in said
    assert "another port" in said


def test_a_node_without_an_address_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text("llm_nodes: [{name: llm-7}]\n")
    said = failed(capsys, "--rig", str(path))
    assert "llm-7" in said
    assert "ragrig up" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rig", "/nowhere/rig.yaml"], "/nowhere/rig.yaml"),
        (["--rig", "/nowhere/rig.yaml", "--log-level", "LOUD"], "LOUD"),
    ],
)
def test_wrong_options_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in failed(capsys, *arguments)


def test_binding() -> None:
    with bind("127.0.0.1", 0).socket as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(Unavailable):
            bind("127.0.0.1", port)
    with pytest.raises(InvalidInput):
        bind("no such host.invalid", 0)
