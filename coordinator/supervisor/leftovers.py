"""Processes of an earlier rig on the same data directory that was killed."""

from __future__ import annotations

import os

import psutil

from coordinator.supervisor.rundir import RunDir

_GRACE_S = 5.0


def find_leftovers(run: RunDir) -> list[psutil.Process]:
    """Nodes whose command line names a ready file of this run directory.

    Nodes end by themselves when their supervisor does; one may still be
    draining, and one that hangs would hold its port for ever.
    """
    prefix = f"{run.path}{os.sep}"
    found = []
    for process in psutil.process_iter(["cmdline"]):
        argv = process.info["cmdline"] or []
        if any(a.startswith(prefix) and a.endswith(".ready") for a in argv):
            found.append(process)
    return [p for p in found if p.pid != os.getpid()]


def end_leftovers(run: RunDir, grace_s: float = _GRACE_S) -> int:
    """Ends them, politely first; the caller must hold the lock. Returns how many."""
    processes = find_leftovers(run)
    for process in processes:
        _signal(process, hard=False)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process, hard=True)
    psutil.wait_procs(alive, timeout=_GRACE_S)
    return len(processes)


def _signal(process: psutil.Process, *, hard: bool) -> None:
    try:
        if hard:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
