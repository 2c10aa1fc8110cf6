"""Nodes of a killed supervisor that did not end by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coordinator.supervisor.leftovers import end_leftovers, find_leftovers
from coordinator.supervisor.rundir import RunDir
from tests.coordinator.supervisor.helpers import alive

CODE = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_{how});"
    " print('r', end='', flush=True); time.sleep(600)"
)


def sleeper(run: RunDir, name: str, how: str) -> subprocess.Popen[bytes]:
    code = CODE.format(how=how)
    argv = [sys.executable, "-c", code, "--ready-file", str(run.ready_file(name))]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"r", "it has set its signal handler"
    return process


def finish(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


def test_only_nodes_of_this_run_directory_end(tmp_path: Path) -> None:
    mine, other = RunDir.of(tmp_path / "a"), RunDir.of(tmp_path / "ab")
    polite = sleeper(mine, "ret-0", "DFL")
    stranger = sleeper(other, "ret-0", "DFL")
    try:
        assert [p.pid for p in find_leftovers(mine)] == [polite.pid]
        assert end_leftovers(mine) == 1
        assert not alive(polite.pid)
        assert alive(stranger.pid)
        assert end_leftovers(mine) == 0
    finally:
        for process in (polite, stranger):
            finish(process)


def test_deaf_node_is_killed(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path)
    deaf = sleeper(run, "llm-0", "IGN")
    try:
        assert end_leftovers(run, grace_s=0.5) == 1
        assert not alive(deaf.pid)
    finally:
        finish(deaf)
