"""What ``ragrig plan check`` does: puts loads on a rig, compares, prints, writes a page."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from coordinator.check import Line, Verdict, at_full, at_load, judge
from coordinator.cli.benching import load_bar
from coordinator.cli.check_page import write_check_page
from coordinator.cli.console import stderr, stdout
from coordinator.cli.rest import RestClient
from coordinator.cli.target import Target
from coordinator.load.client import LoadClient
from coordinator.load.drive import Sending, run_load, warm_up
from coordinator.load.report import LoadReport, Objectives, make_report
from coordinator.load.workload import LoadPlan, Shape, paced, synthetic
from ragschema.errors import InvalidInput, NotFound
from ragschema.planner.plan_file import StoredPlan, read_plan
from ragschema.traffic import ArrivalsConfig

FULL: Final = "full"
_WARMUP: Final = 2
_MAX_IN_FLIGHT: Final = 1024
_PATIENCE_S: Final = 600.0


@dataclass(frozen=True)
class CheckChoices:
    """Options of one call, as they were typed."""

    plan: Path
    collection: str | None
    loads: str
    requests: int
    tolerance_pct: float
    seed: int
    report: Path | None
    json: bool


def run_check(target: Target, choices: CheckChoices) -> bool:
    """Prints the comparison; False: the plan is off by more than the tolerance.

    Raises:
        RagrigError: of the plan, the options, or an endpoint that answers nothing.
    """
    plan = read_plan(choices.plan)
    points, full = chosen_points(plan, choices.loads)
    model = f"ragrig/{choices.collection or _first_collection(target)}"
    lines: list[Line] = []
    for number, point in enumerate(points):
        load = _open_loop(plan, point, choices, number)
        lines += at_load(plan, point, _measure(target, load, _sending(model, _MAX_IN_FLIGHT)))
    if full:
        running = min(2 * plan.stages["decode"][1], plan.under_way or _MAX_IN_FLIGHT)
        load = LoadPlan(synthetic(_shape(plan), choices.requests, choices.seed + 99), None)
        lines.append(at_full(plan, _measure(target, load, _sending(model, running))))
    verdict = judge(lines, choices.tolerance_pct)
    if choices.report is not None:
        write_check_page(plan.schema, verdict, choices.report)
    if choices.json:
        print(json.dumps(document(plan, verdict), indent=1))
    else:
        _print(verdict)
    return verdict.passed


def chosen_points(plan: StoredPlan, loads: str) -> tuple[list[dict[str, float]], bool]:
    """Operating points of a plan by what was typed, and whether a closed loop is wanted.

    Raises:
        InvalidInput: naming the loads that the plan speaks of.
    """
    known = {f"{point['load']:g}": point for point in plan.points}
    if not known or not plan.requests:
        raise InvalidInput(
            "the plan does not say what it promises at which load",
            field="plan",
            hint="make it anew: ragrig plan ... --out plan.yaml",
        )
    names = [name.strip() for name in loads.split(",") if name.strip()]
    found = []
    for name in (n for n in names if n != FULL):
        if name not in known:
            raise InvalidInput(
                f"the plan says nothing about a load of {name}",
                field="loads",
                hint=f"use some of {', '.join((*known, FULL))}",
            )
        found.append(known[name])
    if not names:
        raise InvalidInput("no load is named", field="loads", hint=f"such as 0.5,{FULL}")
    return found, FULL in names


def _first_collection(target: Target) -> str:
    with RestClient(target) as rest:
        listed = rest.get("/v1/collections").get("collections") or []
    if not listed:
        raise NotFound(
            "the rig has no collection to ask about",
            field="collection",
            hint="make one: ragrig ingest",
        )
    return str(listed[0]["name"])


def _shape(plan: StoredPlan) -> Shape:
    """Questions as long as the plan's; what is found for them makes the rest of a prompt."""
    return Shape(max(1, round(plan.requests["question"])), max(1, round(plan.requests["output"])))


def _open_loop(
    plan: StoredPlan, point: dict[str, float], choices: CheckChoices, number: int
) -> LoadPlan:
    seed = choices.seed + number
    requests = synthetic(_shape(plan), choices.requests, seed)
    return paced(requests, ArrivalsConfig(), point["arrivals_per_s"], seed)


def _sending(model: str, in_flight: int) -> Sending:
    # Answers of the planned length: a model that stops early would look quicker than planned.
    return Sending(model, in_flight, _PATIENCE_S, extra=(("ignore_eos", True),))


def _measure(target: Target, load: LoadPlan, sending: Sending) -> LoadReport:
    async def run() -> LoadReport:
        connections = sending.max_in_flight
        async with LoadClient(target.url, target.api_key, connections, _PATIENCE_S) as client:
            await warm_up(client, load, sending, _WARMUP)
            with load_bar(load, sending) as told:
                return make_report(await run_load(client, load, sending, told), load, Objectives())

    return asyncio.run(run())


def document(plan: StoredPlan, verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data."""
    lines = [
        asdict(line) | {"error_pct": line.error_pct, "kept": line.kept(verdict.tolerance_pct)}
        for line in verdict.lines
    ]
    summed = {k: v for k, v in asdict(verdict).items() if k != "lines"}
    return {"schema": plan.schema, "passed": verdict.passed, **summed, "lines": lines}


def _print(verdict: Verdict) -> None:
    table = Table(title="predicted and measured", title_justify="left")
    for column in ("load", "what", "predicted", "interval", "measured", "error %", ""):
        table.add_column(column, justify="left" if column in ("load", "what") else "right")
    for line in verdict.lines:
        between = f"{line.low:.4g} - {line.high:.4g}" if line.high > line.low else ""
        table.add_row(
            line.load, line.what, f"{line.predicted:.4g}", between, f"{line.measured:.4g}",
            f"{line.error_pct:+.1f}", "" if line.kept(verdict.tolerance_pct) else "off",
        )  # fmt: skip
    console = stdout()
    console.print(table)
    for what, definition in {line.what: line.definition for line in verdict.lines}.items():
        console.print(Text(f"{what:<18}{definition}"))
    word = "kept" if verdict.passed else "not kept"
    stderr().print(
        f"the plan is {word}: errors {verdict.median_abs_error_pct:.1f} % at the median and"
        f" {verdict.p90_abs_error_pct:.1f} % at nine of ten; {verdict.tolerance_pct:g} % and twice"
        " that are allowed"
    )
