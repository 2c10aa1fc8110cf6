"""Rigs of stand-in nodes, and looking at processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from coordinator.supervisor.backoff import BackoffConfig
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import NodeView, SupervisionPolicy
from coordinator.supervisor.supervisor import SupervisorOptions
from ragschema.rig import RigConfig, parse_rig

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
SMALL_RIG = "coordinator: {port: 0}"


def small_rig(data_dir: Path, text: str = SMALL_RIG) -> RigConfig:
    return parse_rig(f"{text}\ndata_dir: {data_dir}", "test rig", data_dir)


def options(**env: str) -> SupervisorOptions:
    return SupervisorOptions(
        programs=Programs(STAND_IN, STAND_IN, STAND_IN),
        policy=SupervisionPolicy(
            backoff=BackoffConfig(first_s=0.05), max_failed_starts=3, grace_s=2.0
        ),
        readyz_timeout_s=20.0,
        env={**os.environ, **env},
    )


def ignore(_view: NodeView) -> None:
    """Nobody looks at the changes."""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, f"never happened: {what}"
        time.sleep(0.05)
