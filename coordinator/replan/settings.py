"""What live re-planning is told: its mode, its inputs and how patient it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ragschema.errors import InvalidInput
from ragschema.userfile import read_user_text

Mode = Literal["propose", "auto"]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Factor = Annotated[float, Field(gt=1, le=100)]


@dataclass(frozen=True)
class ReplanSettings:
    """One rig's live re-planning.

    Attributes:
        mode: ``propose`` tells of better plans, ``auto`` deploys them.
        plan: path of the plan that is deployed.
        schema: path of the workload that it was made for.
        profile: path of this machine's profile; None: latencies are modelled.
        folder: of plans that are made here, below the run directory.
        window_s: over which requests are looked at.
        dwell_s: that a plan stays at least; longer when plans followed each other closely.
        enter, leave: factors beyond the plan's range at which a figure counts as out of it,
            and at which it counts as back.
        min_gain: that batches and time-outs of a better plan must bring.
        placement_gain: that other processes must bring beyond better batches.
        min_answers: within the window, below which nothing is concluded.
        limit_s: that planning may take.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    mode: Mode
    plan: str
    schema: str
    profile: str | None
    folder: str
    allow_extrapolation: bool = False
    window_s: _Seconds = 60.0
    dwell_s: _Seconds = 120.0
    enter: _Factor = 1.15
    leave: Annotated[float, Field(ge=1, le=100)] = 1.05
    min_gain: _Factor = 1.1
    placement_gain: _Factor = 1.3
    min_answers: Annotated[int, Field(ge=1)] = 10
    limit_s: _Seconds = 90.0

    @property
    def period_s(self) -> float:
        """Between two looks."""
        return min(2.0, self.window_s / 30)

    @property
    def hold_s(self) -> float:
        """That a figure must stay out of range before it counts."""
        return self.window_s / 4


def check_inputs(settings: ReplanSettings) -> None:
    """Before anything starts.

    Raises:
        NotFound, InvalidInput: a file, or that the schema is another than the plan's.
        IncompatibleRequest: the profile is another machine's, or the plan is not possible
            with it.
    """
    from coordinator.replan.propose import check_deployed
    from ragschema.planner.plan_file import read_plan
    from ragschema.workload import load_schema

    if not settings.leave < settings.enter:
        raise InvalidInput(
            f"{settings.leave} to leave is not below {settings.enter} to enter", field="leave"
        )
    plan, schema = read_plan(Path(settings.plan)), load_schema(Path(settings.schema))
    if plan.schema != schema.name:
        raise InvalidInput(
            f"{settings.plan} was planned for {plan.schema!r}, {settings.schema} is"
            f" {schema.name!r}",
            field="schema",
            hint="name the schema that the plan was made from",
        )
    check_deployed(plan, schema, settings.profile, settings.allow_extrapolation)


def write_settings(path: Path, settings: ReplanSettings) -> None:
    """A file that ``read_settings`` reads back equal."""
    path.write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")


def read_settings(path: Path) -> ReplanSettings:
    """Raises NotFound, InvalidInput: naming the file and the key."""
    text = read_user_text(path, "replan", "ragrig up --replan writes it")
    try:
        return TypeAdapter(ReplanSettings).validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(
            f"{path}: {problem['msg']}", field=".".join(map(str, problem["loc"]))
        ) from error
