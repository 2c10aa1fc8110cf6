"""Where a rig would run: its port and its data directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from coordinator.doctor.rows import Level, Row
from coordinator.supervisor.ports import port_is_free
from coordinator.supervisor.rundir import RunDir

_MIN_FREE_GIB = 1.0


def port(host: str, number: int, data_dir: Path) -> Row:
    """Whether the coordinator's port is free, or ours already."""
    state = RunDir.of(data_dir).read_state()
    if state is not None:
        found = f"this rig serves {state.url}"
        return Row("port", Level.OK, found, "the REST server")
    free = port_is_free(host, number)
    return Row(
        "port",
        Level.OK if free else Level.PROBLEM,
        f"{host}:{number} is {'free' if free else 'taken'}",
        "the REST server",
        "" if free else "stop what listens there, or `ragrig up --port 0`",
    )


def disk(data_dir: Path) -> Row:
    """Free space where collections will lie, and whether we may write there."""
    enables = "collections, logs and run files"
    anchor = data_dir
    while not anchor.exists():
        anchor = anchor.parent
    if not anchor.is_dir() or not os.access(anchor, os.W_OK):
        found = f"{anchor} cannot be written"
        return Row("data dir", Level.PROBLEM, found, enables, "choose another with --data-dir")
    free_gib = shutil.disk_usage(anchor).free / (1 << 30)
    enough = free_gib >= _MIN_FREE_GIB
    return Row(
        "data dir",
        Level.OK if enough else Level.PROBLEM,
        f"{free_gib:.1f} GiB free at {data_dir}",
        enables,
        "" if enough else f"free at least {_MIN_FREE_GIB:g} GiB",
    )
