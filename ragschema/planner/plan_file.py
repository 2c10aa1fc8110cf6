"""``plan.yaml``: a plan as a file that people read and ``ragrig plan compare`` takes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ragschema.planner.admission import most_under_way
from ragschema.planner.assemble import Rate
from ragschema.planner.plan import DEFINITIONS, Plan
from ragschema.planner.points import points
from ragschema.planner.schedule import Schedule, StageChoice
from ragschema.planner.stages import StageKind, StageTable
from ragschema.userfile import checked_yaml, read_user_text, write_user_text


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as plain data; equal plans give equal documents."""
    return {
        "version": 1,
        "schema": plan.schema.name,
        "objective": str(plan.objective),
        "pool": _devices(plan),
        "groups": _groups(plan),
        "predicted": {
            "provenance": " and ".join(sorted(set(plan.provenance.values()))),
            "ttft_s": plan.schedule.ttft_s,
            "tpot_s": plan.tpot_s,
            "qps": plan.schedule.qps,
            "qps_per_chip": plan.schedule.qps_per_chip,
            "cost_per_1000": plan.cost_per_1000,
            "energy_j": plan.per_request(Rate.PER_WATT),
            "intervals": {name: [i.low, i.high] for name, i in plan.intervals.items()},
        },
        "iterative_batch": plan.schedule.iterative_batch,
        "gap": asdict(plan.gap),
        "simulated": dict(plan.simulated),
        "definitions": dict(DEFINITIONS),
    }


def _devices(plan: Plan) -> dict[str, dict[str, int]]:
    """Devices of the plan by name: accelerators, and nodes of retrieval."""
    found: dict[str, dict[str, int]] = {"accelerators": {}, "retrieval": {}}
    for entry in _groups(plan):
        if "device" in entry:
            on = found["accelerators"]
            on[entry["device"]] = on.get(entry["device"], 0) + entry["accelerators"]
        for stage in entry["stages"]:
            if "hosts" in stage:
                found["retrieval"][stage["device"]] = stage["hosts"]
    return found


def _groups(plan: Plan) -> list[dict[str, Any]]:
    choices, stages = plan.schedule.choices, plan.problem.stages_in(plan.schedule.placement)
    found: list[dict[str, Any]] = []
    for group in plan.problem.groups_of(plan.schedule.placement):
        on_chips = [choices[i] for i in group if stages[i].kind is not StageKind.SERVER]
        entry: dict[str, Any] = {"accelerators": on_chips[0].count if on_chips else 0}
        if on_chips:
            entry["device"] = plan.problem.kinds[on_chips[0].kind].name
        engines = _engines(stages[group[-1]], choices[group[-1]])
        if engines > 1:
            entry["processes"] = engines
        entry["stages"] = []
        for i in group:
            name = choices[i].stage
            stage: dict[str, Any] = {"name": name, "batch": choices[i].batch}
            stage["provenance"] = str(plan.provenance[name])
            if name in plan.policy.timeout_s:
                stage["timeout_s"] = plan.policy.timeout_s[name]
            held = _cache_bytes(stages[i], choices[i])
            if held is not None:
                stage["cache_bytes"] = held
            if stages[i].kind is StageKind.SERVER:
                stage["hosts"] = choices[i].count
                stage["device"] = plan.pool.nodes[choices[i].kind].device.name
            entry["stages"].append(stage)
        found.append(entry)
    return found


def _engines(table: StageTable, choice: StageChoice) -> int:
    """Processes that share the group's devices, each with a part of every batch."""
    if table.mixing is None:
        return 1
    return int(table.mixing.engines[table.row(choice.count, choice.kind)])


def _cache_bytes(table: StageTable, choice: StageChoice) -> float | None:
    """What a batch holds on all accelerators of a stage."""
    if table.memory is None:
        return None
    row, column = table.row(choice.count, choice.kind), table.batches.index(choice.batch)
    return float(table.memory.cache_bytes[row, column]) * choice.count


def _requests(plan: Plan) -> dict[str, float]:
    """Mean tokens of the requests that the plan is for."""
    classes = plan.mix.classes
    question = sum(c.share * c.question.mean for c in classes)
    return {"question": question, "prompt": plan.mix.prompt, "output": plan.mix.output}


def write_plan(plan: Plan, path: Path) -> None:
    """The plan, with what it promises at several loads.

    Raises:
        InvalidInput: the file cannot be written.
    """
    most = most_under_way(plan)
    document = plan_document(plan) | {
        "admission": {"under_way": most},
        "requests": _requests(plan),
        "points": points(plan, most=most),
    }
    text = yaml.safe_dump(document, sort_keys=False, width=100)
    write_user_text(path, text, "out")


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    batch: Annotated[int, Field(ge=1)]
    hosts: Annotated[int, Field(ge=1)] | None = None
    device: str | None = None
    timeout_s: Annotated[float, Field(ge=0)] | None = None
    provenance: str | None = None
    cache_bytes: Annotated[float, Field(ge=0)] | None = None


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    accelerators: Annotated[int, Field(ge=0)]
    device: str | None = None
    processes: Annotated[int, Field(ge=1, le=4096)] = 1
    stages: Annotated[list[_Stage], Field(min_length=1)]


class _Predicted(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    provenance: str
    ttft_s: Annotated[float, Field(gt=0)]
    tpot_s: Annotated[float, Field(gt=0)]
    qps: Annotated[float, Field(gt=0)]
    qps_per_chip: Annotated[float, Field(gt=0)]
    cost_per_1000: Annotated[float, Field(ge=0)] | None = None
    energy_j: Annotated[float, Field(ge=0)] | None = None
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)


class _Admission(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    under_way: Annotated[int, Field(ge=1)] | None = None


class _PlanFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: Literal[1]
    schema_name: Annotated[str, Field(alias="schema")]
    objective: str
    pool: dict[str, Any]
    groups: Annotated[list[_Group], Field(min_length=1)]
    predicted: _Predicted
    iterative_batch: Annotated[int, Field(ge=1)] | None = None
    admission: _Admission = Field(default_factory=_Admission)
    gap: dict[str, float]
    simulated: dict[str, float]
    definitions: dict[str, str]
    requests: dict[str, float] = Field(default_factory=dict)
    points: Annotated[list[dict[str, float]], Field(max_length=100)] = Field(default_factory=list)


@dataclass(frozen=True)
class StoredStage:
    """A stage of a plan file.

    Attributes:
        hosts: that hold the database; None: it is no retrieval.
        timeout_s: how long the first request of a batch waits; None: for ever.
        cache_bytes: that its batch holds on all accelerators together; None: not known.
    """

    name: str
    batch: int
    hosts: int | None
    device: str | None
    timeout_s: float | None
    cache_bytes: float | None


@dataclass(frozen=True)
class StoredGroup:
    """Stages that share accelerators of a device; 0 and None for retrieval.

    Attributes:
        processes: that divide accelerators and batches among them.
    """

    accelerators: int
    device: str | None
    stages: tuple[StoredStage, ...]
    processes: int = 1


@dataclass(frozen=True)
class StoredPlan:
    """What a plan file says, as far as plans are compared and deployed.

    Attributes:
        intervals: of predicted figures, low and high; empty where all are modelled.
        simulated: figures under the schema's arrivals.
        iterative_batch: sequences that retrieve together; None: none do.
        requests: mean tokens: ``question``, ``prompt``, ``output``.
        points: what is promised at several loads.
        under_way: requests beyond which others are refused, so that those let in are answered
            within the objectives; None: no objective asks for it.
    """

    schema: str
    predicted: dict[str, float]
    groups: tuple[StoredGroup, ...]
    intervals: dict[str, tuple[float, float]]
    simulated: dict[str, float]
    iterative_batch: int | None
    requests: dict[str, float] = field(default_factory=dict)
    points: tuple[dict[str, float], ...] = ()
    under_way: int | None = None

    @property
    def accelerators(self) -> int:
        """Of all groups."""
        return sum(group.accelerators for group in self.groups)

    @property
    def stages(self) -> dict[str, tuple[int, int, int]]:
        """Stage name to (accelerators or hosts, batch, number of its group)."""
        return {
            stage.name: (stage.hosts or group.accelerators, stage.batch, number)
            for number, group in enumerate(self.groups)
            for stage in group.stages
        }


def read_plan(path: Path) -> StoredPlan:
    """Raises NotFound, InvalidInput: naming the file, the key and the value."""
    text = read_user_text(path, "plan", "make one: ragrig plan")
    file = checked_yaml(text, str(path), _PlanFile, "make the plan anew: ragrig plan")
    predicted = file.predicted.model_dump(exclude={"provenance", "intervals"}, exclude_none=True)
    return StoredPlan(
        file.schema_name, predicted, tuple(map(_stored, file.groups)),
        file.predicted.intervals, file.simulated, file.iterative_batch, file.requests,
        tuple(file.points), file.admission.under_way,
    )  # fmt: skip


def _stored(group: _Group) -> StoredGroup:
    stages = tuple(
        StoredStage(s.name, s.batch, s.hosts, s.device, s.timeout_s, s.cache_bytes)
        for s in group.stages
    )
    return StoredGroup(group.accelerators, group.device, stages, group.processes)


def device_of(plan: Plan) -> Callable[[StageChoice], str]:
    """Names the device of a stage's choice."""
    nodes = {s.name for s in plan.problem.stages if s.kind is StageKind.SERVER}

    def name(choice: StageChoice) -> str:
        if choice.stage in nodes:
            return plan.pool.nodes[choice.kind].device.name
        return plan.problem.kinds[choice.kind].name

    return name


def frontier_rows(
    schedules: tuple[Schedule, ...],
    kinds: Callable[[StageChoice], str] | None = None,
    more: Callable[[Schedule], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """One flat row per schedule, for CSV and JSON.

    Args:
        kinds: names the device of a choice; None: there is one kind.
        more: further columns of a schedule.
    """
    rows = []
    for schedule in schedules:
        row: dict[str, Any] = {
            "ttft_s": schedule.ttft_s,
            "qps_per_chip": schedule.qps_per_chip,
            "qps": schedule.qps,
            "chips": schedule.chips,
            "servers": schedule.servers,
            **(more(schedule) if more is not None else {}),
            "placement": "|".join(
                "+".join(schedule.choices[i].stage for i in group) for group in schedule.placement
            ),
        }
        for choice in schedule.choices:
            row[f"{choice.stage}_count"] = choice.count
            if kinds is not None:
                row[f"{choice.stage}_device"] = kinds(choice)
            row[f"{choice.stage}_batch"] = choice.batch
        rows.append(row)
    return rows
