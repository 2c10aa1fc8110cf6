"""``plan.yaml``: a plan as a file that people read and ``ragrig plan compare`` takes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ragschema.errors import InvalidInput
from ragschema.planner.plan import DEFINITIONS, Plan
from ragschema.planner.problem import StageKind
from ragschema.planner.schedule import Schedule
from ragschema.userfile import checked_yaml, read_user_text


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as plain data; equal plans give equal documents."""
    return {
        "version": 1,
        "schema": plan.schema.name,
        "objective": str(plan.objective),
        "pool": {
            "accelerator": plan.pool.chip.name,
            "host": plan.pool.host.name,
            "accelerators": plan.schedule.chips,
            "hosts": plan.schedule.servers,
        },
        "groups": _groups(plan),
        "predicted": {
            "provenance": "modelled",
            "ttft_s": plan.schedule.ttft_s,
            "tpot_s": plan.tpot_s,
            "qps": plan.schedule.qps,
            "qps_per_chip": plan.schedule.qps_per_chip,
        },
        "simulated": dict(plan.simulated),
        "definitions": dict(DEFINITIONS),
    }


def _groups(plan: Plan) -> list[dict[str, Any]]:
    choices, stages = plan.schedule.choices, plan.problem.stages
    found: list[dict[str, Any]] = []
    for group in (*plan.schedule.placement, (len(stages) - 1,)):
        on_chips = [choices[i].count for i in group if stages[i].kind is not StageKind.SERVER]
        entry: dict[str, Any] = {"accelerators": on_chips[0] if on_chips else 0, "stages": []}
        for i in group:
            stage: dict[str, Any] = {"name": choices[i].stage, "batch": choices[i].batch}
            if stages[i].kind is StageKind.SERVER:
                stage["hosts"] = choices[i].count
            entry["stages"].append(stage)
        found.append(entry)
    return found


def write_plan(plan: Plan, path: Path) -> None:
    """Raises InvalidInput when the file cannot be written."""
    text = yaml.safe_dump(plan_document(plan), sort_keys=False, width=100)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"cannot write {path}: {error}", field="out", hint="name a file that can be written"
        ) from error


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    batch: Annotated[int, Field(ge=1)]
    hosts: Annotated[int, Field(ge=1)] | None = None


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    accelerators: Annotated[int, Field(ge=0)]
    stages: Annotated[list[_Stage], Field(min_length=1)]


class _Predicted(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    provenance: str
    ttft_s: Annotated[float, Field(gt=0)]
    tpot_s: Annotated[float, Field(gt=0)]
    qps: Annotated[float, Field(gt=0)]
    qps_per_chip: Annotated[float, Field(gt=0)]


class _PlanFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: Literal[1]
    schema_name: Annotated[str, Field(alias="schema")]
    objective: str
    pool: dict[str, Any]
    groups: Annotated[list[_Group], Field(min_length=1)]
    predicted: _Predicted
    simulated: dict[str, float]
    definitions: dict[str, str]


@dataclass(frozen=True)
class StoredPlan:
    """What a plan file says, as far as plans are compared.

    Attributes:
        stages: stage name to (accelerators or hosts, batch, number of its group).
    """

    schema: str
    accelerators: int
    predicted: dict[str, float]
    stages: dict[str, tuple[int, int, int]]


def read_plan(path: Path) -> StoredPlan:
    """Raises NotFound, InvalidInput: naming the file, the key and the value."""
    text = read_user_text(path, "plan", "make one: ragrig plan")
    file = checked_yaml(text, str(path), _PlanFile, "make the plan anew: ragrig plan")
    stages = {
        stage.name: (stage.hosts or group.accelerators, stage.batch, number)
        for number, group in enumerate(file.groups)
        for stage in group.stages
    }
    predicted = file.predicted.model_dump(exclude={"provenance"})
    chips = sum(group.accelerators for group in file.groups)
    return StoredPlan(file.schema_name, chips, predicted, stages)


def frontier_rows(schedules: tuple[Schedule, ...]) -> list[dict[str, Any]]:
    """One flat row per schedule, for CSV and JSON."""
    rows = []
    for schedule in schedules:
        row: dict[str, Any] = {
            "ttft_s": schedule.ttft_s,
            "qps_per_chip": schedule.qps_per_chip,
            "qps": schedule.qps,
            "chips": schedule.chips,
            "servers": schedule.servers,
            "placement": "|".join(
                "+".join(schedule.choices[i].stage for i in group) for group in schedule.placement
            ),
        }
        for choice in schedule.choices:
            row[f"{choice.stage}_count"] = choice.count
            row[f"{choice.stage}_batch"] = choice.batch
        rows.append(row)
    return rows
