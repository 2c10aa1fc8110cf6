"""Processes: announced whole, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ragschema import procs

CHILD = """
import os, sys, time
from ragschema import procs
procs.exit_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())],
                         stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A parent process and the pid of its child, which obeys it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    yield parent, child
    parent.kill()
    parent.wait()
    parent.stdout.close()
    if psutil.pid_exists(child):
        os.kill(child, signal.SIGKILL)


def wait_until_gone(pid: int) -> bool:
    limit_s = time.monotonic() + 20
    while time.monotonic() < limit_s:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux kernel feature")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(
    family: tuple[subprocess.Popen[str], int], how: signal.Signals
) -> None:
    parent, child = family
    assert psutil.pid_exists(child)
    parent.send_signal(how)
    parent.wait(20)
    assert wait_until_gone(child)


def test_a_child_of_another_parent_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "parent process 1 is gone" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_announcement_says_who_and_where(tmp_path: Path) -> None:
    procs.announce(tmp_path / "ret-0.ready", "ret-0", "127.0.0.1:7000")
    body = json.loads((tmp_path / "ret-0.ready").read_text())
    assert body == {"name": "ret-0", "address": "127.0.0.1:7000", "pid": os.getpid()}
    assert os.listdir(tmp_path) == ["ret-0.ready"]


def test_an_announcement_is_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / "n.ready"
    procs.announce(ready, "n", "old:1")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        procs.announce(ready, "n", "new:2")
    assert json.loads(ready.read_text())["address"] == "old:1"


def test_nodes_with_dots_in_their_names_do_not_share_a_draft(tmp_path: Path) -> None:
    for name in ("a.b.ready", "a.c.ready"):
        procs.announce(tmp_path / name, name, "h:1")
    assert sorted(os.listdir(tmp_path)) == ["a.b.ready", "a.c.ready"]


def test_thread_pools_are_calmed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    )  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, "untouched")
    procs.calm_thread_pools(3)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert [os.environ[n] for n in names[1:5]] == ["3"] * 4
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_a_log_line_names_the_node() -> None:
    script = (
        "import logging; from ragschema import procs; procs.setup_logging('ret-0', 'INFO');"
        "logging.getLogger('x').info('hello')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "INFO ret-0 x: hello" in done.stderr
    assert done.stdout == ""
