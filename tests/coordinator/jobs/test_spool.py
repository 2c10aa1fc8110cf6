"""Spool folders: whose they are and when they go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.jobs.spool import Spool
from ragschema.errors import InvalidInput


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    for name in (f"{gone.pid}-aa", f"{os.getpid()}-bb", "odd"):
        (tmp_path / name).mkdir()
    Spool(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == [f"{os.getpid()}-bb"]


def test_folders_are_new_and_closing_removes_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.open()
    first, second = spool.folder(), spool.folder()
    assert first != second
    (first / "file").write_bytes(b"x")
    spool.discard(first)
    assert not first.exists()
    spool.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput) as caught:
        Spool(tmp_path / "file" / "spool").open()
    assert caught.value.field == "data_dir"
