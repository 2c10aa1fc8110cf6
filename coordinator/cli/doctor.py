"""``ragrig doctor``: what this machine can do, and what to install."""

from __future__ import annotations

import typer

from coordinator.cli import options


def doctor(config: options.Config = None, data_dir: options.DataDir = None) -> None:
    """Say what this machine can do and what to install; exit with 1 on a problem."""
    from pathlib import Path

    from coordinator.cli.console import stdout
    from coordinator.cli.doctor_view import row_text
    from coordinator.cli.target import rig_of
    from coordinator.doctor.machine import Machine
    from coordinator.doctor.report import examine, problems

    rig = rig_of(config, data_dir)
    rows = examine(Machine(), Path(rig.data_dir), rig.coordinator.host, rig.coordinator.port)
    console = stdout()
    for row in rows:
        console.print(row_text(row))
    if problems(rows):
        raise typer.Exit(1)
