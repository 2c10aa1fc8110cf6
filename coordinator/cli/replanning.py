"""Options of live re-planning."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ragschema.errors import InvalidInput

if TYPE_CHECKING:
    from coordinator.replan.settings import ReplanSettings


class Replan(enum.StrEnum):
    """What is done about a load that has left the plan's range."""

    OFF = "off"
    PROPOSE = "propose"
    AUTO = "auto"


Mode = Annotated[
    Replan,
    typer.Option(
        help="While the rig runs, watch whether its load is still what was planned for: propose"
        " better plans, or deploy them too (auto)."
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        help="With --replan: the workload that the plan was made for.", metavar="SCHEMA.yaml"
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        help="With --replan: what was measured of this machine, as for ragrig plan.",
        metavar="profile.json",
    ),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--allow-extrapolation",
        help="With --replan: use the profile beyond what was measured, as for ragrig plan.",
    ),
]
Window = Annotated[
    float, typer.Option(help="Seconds over which the load is looked at.", min=1, max=86_400)
]
Dwell = Annotated[
    float, typer.Option(help="Seconds that a plan stays at least.", min=1, max=86_400)
]
Gain = Annotated[
    float,
    typer.Option(
        help="Times better that other batches must be predicted to be; other processes must be"
        " 1.3 times better than those.",
        min=1.01,
        max=100,
    ),
]


class Inputs(NamedTuple):
    """Files, and how the profile is read."""

    schema: Path | None
    profile: Path | None
    allow_extrapolation: bool
    data_dir: str


class Patience(NamedTuple):
    """How soon, and for what."""

    window_s: float
    dwell_s: float
    gain: float


def settings_of(
    mode: Replan, plan: Path | None, inputs: Inputs, patience: Patience
) -> ReplanSettings | None:
    """What the options ask for; None: nothing.

    Raises:
        InvalidInput, NotFound: a file is not given, not there, or no file of its kind.
    """
    from coordinator.replan.settings import ReplanSettings, check_inputs
    from coordinator.supervisor.rundir import RunDir

    if mode is Replan.OFF:
        return None
    if plan is None or inputs.schema is None:
        raise InvalidInput(
            "re-planning needs the plan and the workload that it was made for",
            field="plan" if plan is None else "schema",
            hint="ragrig up --plan plan.yaml --replan auto --schema schema.yaml"
            " --profile profile.json",
        )
    settings = ReplanSettings(
        mode="auto" if mode is Replan.AUTO else "propose",
        plan=str(plan.resolve()),
        schema=str(inputs.schema.resolve()),
        profile=None if inputs.profile is None else str(inputs.profile.resolve()),
        allow_extrapolation=inputs.allow_extrapolation,
        folder=str(RunDir.of(inputs.data_dir).replan_dir),
        window_s=patience.window_s,
        dwell_s=patience.dwell_s,
        min_gain=patience.gain,
    )
    check_inputs(settings)
    return settings
