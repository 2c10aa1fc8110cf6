"""``ragrig up``: run a rig until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import options

if TYPE_CHECKING:
    from ragschema.rig import RigConfig


def up(
    config: options.Config = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address the REST server listens on; other than loopback needs an API key."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the REST server, 0 for any free one. Default: 8080.", min=0, max=65535
        ),
    ] = None,
    data_dir: options.DataDir = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key that clients must send.", metavar="FILE"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Deploy this plan: roles, cores and batches come from it, models and data from"
            " the rig file.",
            metavar="plan.yaml",
        ),
    ] = None,
    ready_timeout: Annotated[
        float,
        typer.Option(help="Seconds the rig may take to turn ready once it is started.", min=1),
    ] = 60.0,
) -> None:
    """Start the nodes of a rig, keep them running, stop them all on Ctrl-C."""
    import asyncio

    from coordinator.auth import check_listen, load_api_key
    from coordinator.cli.target import rig_of
    from coordinator.cli.up_view import UpView
    from coordinator.supervisor.run import serve_rig
    from coordinator.supervisor.supervisor import SupervisorOptions

    rig = _with_options(rig_of(config, data_dir), host, port, api_key_file)
    if plan is not None:
        rig = _planned(rig, plan)
    key_file = rig.coordinator.api_key_file
    check_listen(rig.coordinator.host, load_api_key(Path(key_file)) if key_file else None)
    view = UpView()
    settings = SupervisorOptions(readyz_timeout_s=ready_timeout)
    asyncio.run(serve_rig(rig, view.changed, view.up, settings))
    view.stopped()


def _planned(rig: RigConfig, path: Path) -> RigConfig:
    import os

    from coordinator.deploy import rig_for
    from ragschema.planner.plan_file import read_plan

    return rig_for(read_plan(path), rig, sorted(os.sched_getaffinity(0)))


def _with_options(
    rig: RigConfig, host: str | None, port: int | None, api_key_file: Path | None
) -> RigConfig:
    from dataclasses import replace

    own = rig.coordinator
    key_file = own.api_key_file if api_key_file is None else str(api_key_file.resolve())
    coordinator = replace(
        own,
        host=own.host if host is None else host,
        port=own.port if port is None else port,
        api_key_file=key_file,
    )
    return replace(rig, coordinator=coordinator)
