"""``ragrig up --engine ray``: the same rig on a Ray cluster, which follows its plan file."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragschema.errors import InvalidInput, RagrigError

if TYPE_CHECKING:
    from coordinator.cli.up_view import UpView
    from coordinator.ray_engine.engine import RayEngine
    from coordinator.supervisor.readiness import Readiness
    from coordinator.supervisor.supervisor import SupervisorOptions
    from ragschema.rig import RigConfig


class Engine(enum.StrEnum):
    """Who starts the nodes, and where."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    Engine,
    typer.Option(help="Where nodes run: on this machine, or on the machines of a Ray cluster."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: head of the cluster. Without it RAY_ADDRESS, then the cluster"
        " that this machine is part of, then one of this machine alone.",
        metavar="HOST:PORT",
    ),
]


def up_on_ray(
    base: RigConfig,
    plan: Path | None,
    address: str | None,
    view: UpView,
    settings: SupervisorOptions,
) -> None:
    """Runs the rig, planned if there is a plan, until a signal comes.

    A plan file that changes is deployed in place of the one before. One that cannot be is
    told of, and what runs stays.

    Raises:
        RagrigError: see ``coordinator.ray_engine.run.serve_on_ray``.
    """
    from coordinator.ray_engine.run import Watched, serve_on_ray

    def planned() -> RigConfig:
        return base if plan is None else planned_on_ray(plan, base)

    def moved(engine: RayEngine) -> None:
        view.moved(f"now {plan} is what runs", engine.views())

    def kept(error: RagrigError) -> None:
        view.tell(f"{plan} is not deployed, what runs stays: {error}")

    watched = None if plan is None else Watched(plan, planned, moved, kept)
    serve_on_ray(planned(), address, view.changed, _up(view), settings, watched)


def check_replan(wanted: bool) -> None:
    """Raises InvalidInput: live re-planning restarts processes of this machine alone."""
    if wanted:
        raise InvalidInput(
            "live re-planning looks after processes of this machine alone",
            field="replan",
            hint="write another plan over plan.yaml, which a rig on Ray goes over to",
        )


def planned_on_ray(plan: Path, base: RigConfig) -> RigConfig:
    """The rig of a plan for cores; a rig with a plan's batches for other devices."""
    from coordinator.export.plan import is_for_cores, planned_rig
    from coordinator.ray_engine.placement import replicated
    from ragschema.planner.plan_file import read_plan

    read = read_plan(plan)
    rig = planned_rig(read, base)
    return replicated(rig) if is_for_cores(read) else rig


def _up(view: UpView) -> Callable[[RayEngine, Readiness], None]:
    def up(engine: RayEngine, readiness: Readiness) -> None:
        view.up_with(engine.views(), readiness)

    return up
