"""The launcher: an ingestion must not outlive the coordinator."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path


def test_the_death_signal_survives_the_exec(tmp_path: Path) -> None:
    """A parent that is killed takes the program its child became with it."""
    pid_file = tmp_path / "pid"
    child = (
        "import os, sys; from ragschema.procs import exit_with_parent;"
        " exit_with_parent(int(sys.argv[1]));"
        f" open({str(pid_file)!r}, 'w').write(str(os.getpid()));"
        " os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(600)'])"
    )
    parent = textwrap.dedent(
        f"""
        import os, subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())])
        time.sleep(600)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    process.kill()
    process.wait()
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def test_a_parent_that_is_gone_already_starts_nothing() -> None:
    argv = [sys.executable, "-m", "coordinator.jobs.child", "1", "/nowhere/spec.json"]
    if os.getppid() == 1:
        argv[3] = "2"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "is gone" in done.stderr
    assert "Traceback" not in done.stderr


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
