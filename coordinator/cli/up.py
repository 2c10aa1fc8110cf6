"""``ragrig up``: run a rig until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli import options, replanning, up_ray

if TYPE_CHECKING:
    from ragschema.rig import RigConfig


Host = Annotated[
    str | None,
    typer.Option(help="Address the REST server listens on; other than loopback needs an API key."),
]
Port = Annotated[
    int | None,
    typer.Option(
        help="Port of the REST server, 0 for any free one. Default: 8080.", min=0, max=65535
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the API key that clients must send.", metavar="FILE"),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        help="Deploy this plan: roles, cores and batches come from it, models and data from"
        " the rig file.",
        metavar="plan.yaml",
    ),
]
ReadyTimeout = Annotated[
    float,
    typer.Option(help="Seconds the rig may take to turn ready once it is started.", min=1),
]


def up(
    config: options.Config = None,
    host: Host = None,
    port: Port = None,
    data_dir: options.DataDir = None,
    api_key_file: KeyFile = None,
    plan: PlanFile = None,
    replan: replanning.Mode = replanning.Replan.OFF,
    schema: replanning.Schema = None,
    profile: replanning.Profile = None,
    allow_extrapolation: replanning.Extrapolate = False,
    replan_window: replanning.Window = 60.0,
    replan_dwell: replanning.Dwell = 120.0,
    replan_gain: replanning.Gain = 1.1,
    engine: up_ray.EngineOption = up_ray.Engine.LOCAL,
    ray_address: up_ray.RayAddress = None,
    ready_timeout: ReadyTimeout = 60.0,
) -> None:
    """Start the nodes of a rig, keep them running, stop them all on Ctrl-C."""
    import asyncio

    from coordinator.auth import check_listen, load_api_key
    from coordinator.cli.target import rig_of
    from coordinator.cli.up_view import UpView
    from coordinator.supervisor.run import serve_rig
    from coordinator.supervisor.supervisor import SupervisorOptions

    rig = _with_options(rig_of(config, data_dir), host, port, api_key_file)
    watched = replanning.settings_of(
        replan, plan, replanning.Inputs(schema, profile, allow_extrapolation, rig.data_dir),
        replanning.Patience(replan_window, replan_dwell, replan_gain),
    )  # fmt: skip
    settings = SupervisorOptions(readyz_timeout_s=ready_timeout, replan=watched)
    base = rig
    if engine is up_ray.Engine.LOCAL and plan is not None:
        rig = _planned(rig, plan)
    key_file = rig.coordinator.api_key_file
    check_listen(rig.coordinator.host, load_api_key(Path(key_file)) if key_file else None)
    view = UpView()
    if engine is up_ray.Engine.RAY:
        up_ray.check_replan(watched is not None)
        up_ray.up_on_ray(rig, plan, ray_address, view, settings)
    else:
        asyncio.run(serve_rig(rig, view.changed, view.up, settings, base))
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
