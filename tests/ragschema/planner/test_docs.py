"""The examples of docs/planner.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli.app import run
from ragschema.userfile import keys_at
from ragschema.workload import RagSchema

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "planner.md").read_text(encoding="utf-8")


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_first_command_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command = re.search(r"```sh\nragrig (plan .*)\n", TEXT)
    assert command is not None
    assert run(command[1].split()) == 0
    assert "binding:" in capsys.readouterr().out


def test_every_key_of_a_schema_is_listed() -> None:
    for part in keys_at(RagSchema, ()):
        assert f"`{part}" in TEXT, part
        for key in keys_at(RagSchema, (part,)):
            assert re.search(rf"`(?:{part})?\.{key}`", TEXT), f"{part}.{key}"
