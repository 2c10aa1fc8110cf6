"""Run files: who holds them, and when they are believed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.supervisor.rundir import NodeRecord, RigState, RunDir
from ragschema.errors import InvalidInput

STATE = RigState(1, "127.0.0.1:8", (NodeRecord("far", "retrieval", "h:1", None),))


def test_state_is_only_believed_while_the_lock_is_held(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path)
    assert run.read_state() is None
    run.create()
    run.write_state(STATE)
    assert run.read_state() is None
    with run.locked():
        assert run.read_state() == STATE
        run.state_file.write_text('{"pid": 1}')
        assert run.read_state() is None
    assert not run.is_held()


def test_unwritable_data_dir_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write") as caught:
        RunDir.of(tmp_path / "file").create()
    assert caught.value.field == "data_dir"


def test_state_of_a_dead_supervisor_is_not_believed(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path)
    run.create()
    dead = subprocess.Popen(["true"])
    dead.wait(20)
    with run.locked():
        run.write_state(replace(STATE, pid=dead.pid))
        assert run.read_state() is None
