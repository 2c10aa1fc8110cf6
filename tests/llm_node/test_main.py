from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_node", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200"},
    )


def test_help_explains_every_option() -> None:
    result = _run("serve", "--help")
    assert result.returncode == 0
    for option in ("--name", "--host", "--port", "--roles", "--embedder", "--generator"):
        assert option in result.stdout
    for option in ("--api-key-env", "--threads", "--max-running", "--max-waiting", "--ready-file"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--embeder", "x"), "--embedder"),
        (("--port", "70000"), "less than or equal to 65535"),
        (("--roles", "embed,dance"), "'dance' is no role"),
        (("--roles", ","), "no role is named"),
        (("--roles", "generate", "--generator", "gpt"), "'gpt' is no generator"),
        (("--log-level", "LOUD"), "'LOUD' is no level"),
        (("--roles", "generate", "--api-key-env", "NOT_SET_AT_ALL"), "NOT_SET_AT_ALL is not set"),
        (("--embedder", "/no/such/model"), "no model directory /no/such/model"),
        (("--embedder-dtype", "int8"), "'int8' is not one of 'float32', 'bfloat16'"),
    ],
)
def test_wrong_options_name_the_fix(arguments: tuple[str, ...], said: str) -> None:
    result = _run("serve", *arguments)
    assert result.returncode != 0
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_is_the_default_command() -> None:
    result = _run("--roles", "dance")
    assert "'dance' is no role" in result.stderr


def test_taken_port_is_reported(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = _run("--roles", "generate", "--port", str(port))
    assert result.returncode == 1
    assert f"error: port: cannot listen on 127.0.0.1:{port}" in result.stderr
