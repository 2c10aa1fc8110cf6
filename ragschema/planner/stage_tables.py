"""Stage tables measured or modelled elsewhere, and the limits of a search over them.

The layout is that of the public RAGO artifact's search: a CSV of latencies
(``stage, num_resource, resource, batch_size, latency_s``) and a JSON of limits. One batch
size holds for all stages before decode; TTFT is then the sum of their latencies.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragschema.errors import InvalidInput
from ragschema.planner.problem import Problem, Sharing
from ragschema.planner.stages import StageKind, StageTable
from ragschema.userfile import read_user_text

#: A request's way. Stages that a table does not name are not there.
ORDER = ("rewrite_prefill", "rewrite_decode", "encode", "retrieval", "rerank", "prefill", "decode")
_COLUMNS = ("stage", "num_resource", "resource", "batch_size", "latency_s")
_MAX_ROWS = 5_000_000

Size = Annotated[int, Field(ge=1, le=10_000_000)]


class _Limits(BaseModel):
    """Keys that this search does not know are other tools' settings and are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)
    max_batch_size_request: Size
    min_num_chips: Size
    max_num_chips: Size
    max_num_chips_per_stage: Size
    placement_policy: Sharing = Sharing.NONE
    possible_num_chips: dict[str, list[Size] | None] = {}


@dataclass(frozen=True)
class Limits:
    """What a schedule over stage tables may use.

    Attributes:
        max_batch: largest batch before decode.
        allowed_chips: per stage the numbers of chips to try; a stage that is not named
            may have any that its table has.
    """

    max_batch: int
    min_chips: int
    max_chips: int
    max_chips_per_stage: int
    sharing: Sharing
    allowed_chips: Mapping[str, tuple[int, ...]]


def read_limits(path: Path) -> Limits:
    """Limits from a JSON file; they may stand under the key ``sweep_kw``.

    Raises:
        NotFound, InvalidInput: naming the file and the key.
    """
    try:
        raw = json.loads(read_user_text(path, "limits", "name an existing file"))
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}", field="limits") from error
    if isinstance(raw, dict) and isinstance(raw.get("sweep_kw"), dict):
        raw = raw["sweep_kw"]
    try:
        limits = _Limits.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(
            f"{path}: {problem['input']!r}: {problem['msg']}",
            field=".".join(str(p) for p in problem["loc"]),
            hint="give max_batch_size_request, min_num_chips, max_num_chips,"
            " max_num_chips_per_stage",
        ) from error
    allowed = {k: tuple(v) for k, v in limits.possible_num_chips.items() if v is not None}
    return Limits(
        limits.max_batch_size_request,
        limits.min_num_chips,
        limits.max_num_chips,
        limits.max_num_chips_per_stage,
        limits.placement_policy,
        allowed,
    )


def problem_from_tables(path: Path, limits: Limits) -> Problem:
    """The search problem of a CSV of stage tables.

    Raises:
        NotFound, InvalidInput: naming the file, the line and the column.
    """
    cells = _cells(path)
    stages = [
        _table(name, cells[name], limits, str(path))
        for name in sorted(cells, key=ORDER.index)  # checked while reading
    ]
    return Problem(
        tuple(stages),
        limits.min_chips,
        limits.max_chips,
        uniform_batch=True,
        sharing=limits.sharing,
    )


def _cells(path: Path) -> dict[str, dict[tuple[int, int], tuple[str, float]]]:
    rows = csv.DictReader(
        read_user_text(path, "stage_tables", "name an existing file").splitlines()
    )
    missing = [c for c in _COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}",
            field="stage_tables",
            hint=f"its first line must name {', '.join(_COLUMNS)}",
        )
    cells: dict[str, dict[tuple[int, int], tuple[str, float]]] = {}
    for row in rows:
        where = f"{path} line {rows.line_num}"
        stage = _known(row["stage"], where)
        key = (_size(row, "num_resource", where), _size(row, "batch_size", where))
        table = cells.setdefault(stage, {})
        if key in table:
            raise InvalidInput(
                f"{where}: {stage} has two latencies for {key[0]} and batch {key[1]}",
                field="stage_tables",
                hint="keep one of them",
            )
        table[key] = (row["resource"], _latency(row, where))
        if rows.line_num > _MAX_ROWS:
            raise InvalidInput(f"{path} has more than {_MAX_ROWS} lines", field="stage_tables")
    return cells


def _known(stage: str, where: str) -> str:
    if stage not in ORDER:
        raise InvalidInput(
            f"{where}: {stage!r} is no stage", field="stage", hint=f"use {', '.join(ORDER)}"
        )
    return stage


def _size(row: Mapping[str, Any], column: str, where: str) -> int:
    text = row[column] or ""
    if not text.isdigit() or not 1 <= int(text) <= 10_000_000:
        raise InvalidInput(
            f"{where}: {text!r} is no size", field=column, hint="give a whole number from 1"
        )
    return int(text)


def _latency(row: Mapping[str, Any], where: str) -> float:
    try:
        value = float(row["latency_s"])
    except (TypeError, ValueError):
        value = math.nan
    if not value > 0 or math.isinf(value):
        raise InvalidInput(
            f"{where}: {row['latency_s']!r} is no latency",
            field="latency_s",
            hint="give seconds above 0, and leave rows out that are not possible",
        )
    return value


def _table(
    name: str, cells: Mapping[tuple[int, int], tuple[str, float]], limits: Limits, source: str
) -> StageTable:
    resources = sorted({resource for resource, _ in cells.values()})
    if len(resources) != 1 or resources[0] not in ("chips", "servers"):
        raise InvalidInput(
            f"{source}: {name} runs on {', '.join(resources)}",
            field="resource",
            hint="a stage runs on chips or on servers",
        )
    server = resources[0] == "servers"
    kind = StageKind.DECODE if name == "decode" else StageKind.CHIP
    counts = sorted({count for count, _ in cells if server or _allowed(name, count, limits)})
    largest = None if name == "decode" else limits.max_batch
    batches = sorted({batch for _, batch in cells if largest is None or batch <= largest})
    if not counts or not batches:
        raise InvalidInput(
            f"{source}: the limits leave nothing of {name}",
            field="limits",
            hint="raise max_num_chips_per_stage or max_batch_size_request",
        )
    latency = np.array([[_cell(cells, count, batch) for batch in batches] for count in counts])
    return StageTable(
        name, StageKind.SERVER if server else kind, tuple(counts), tuple(batches), latency
    )


def _cell(cells: Mapping[tuple[int, int], tuple[str, float]], count: int, batch: int) -> float:
    found = cells.get((count, batch))
    return math.inf if found is None else found[1]


def _allowed(name: str, count: int, limits: Limits) -> bool:
    chosen: Iterable[int] | None = limits.allowed_chips.get(name)
    return count <= limits.max_chips_per_stage and (chosen is None or count in chosen)
