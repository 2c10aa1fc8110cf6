"""What ``ragrig plan`` does: loads files, searches behind a progress bar, prints."""

from __future__ import annotations

import csv
import enum
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coordinator.cli.console import stderr, stdout
from coordinator.cli.plan import Format
from coordinator.cli.plan_tables import outcome_row, robustness_table, what_if_table
from coordinator.cli.plan_view import (
    comparison_table,
    explanation,
    figures_table,
    frontier_sketch,
    frontier_table,
    plan_table,
)
from ragschema.errors import InvalidInput
from ragschema.here import this_machine
from ragschema.local import local_pool
from ragschema.measured import Measured
from ragschema.planner.assemble import Counts, Rate, SearchSpace
from ragschema.planner.axes import Axis, Objective
from ragschema.planner.explain import loads, marginals, runner_up
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import DEFINITIONS, Plan, make_plan
from ragschema.planner.plan_file import (
    device_of,
    frontier_rows,
    plan_document,
    read_plan,
    write_plan,
)
from ragschema.planner.play import answer_s
from ragschema.planner.problem import Decoding, Sharing
from ragschema.planner.robust import losses, over_loads
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import search
from ragschema.planner.stage_tables import problem_from_tables, read_limits
from ragschema.planner.what_if import parse_vary, what_if
from ragschema.pool import Pool, load_pool, with_profiles
from ragschema.profile import read_profile
from ragschema.userfile import read_user_text
from ragschema.workload import RagSchema, load_schema

_E = TypeVar("_E", bound=enum.StrEnum)


@dataclass(frozen=True)
class PlanChoices:
    """Options of one call, as they were typed."""

    objective: str
    counts: str
    sharing: str
    out: Path | None
    explain: bool
    plot: Path | None
    format: Format
    axes: str | None = None
    time_limit_s: float | None = None
    robustness: bool = False
    decode: str = "apart"
    profiles: tuple[str, ...] = ()
    allow_extrapolation: bool = False


def run_plan(schema_path: Path, pool_path: Path, choices: PlanChoices) -> bool:
    """Prints the plan; False: nothing meets the objectives."""
    space = _space(choices)
    schema, pool = load_schema(schema_path), _pool(pool_path, choices)
    with _progress("searching schedules") as told:
        plan = _made(schema, pool, choices, told)
    if isinstance(plan, Infeasible):
        _print_infeasible(plan, choices.format)
        return False
    if choices.out is not None:
        write_plan(plan, choices.out)
    columns = _columns(plan)
    several = len(plan.problem.kinds) > 1 or len(plan.pool.nodes) > 1
    device = device_of(plan) if several else None
    rows = frontier_rows(
        plan.shown,
        device,
        lambda s: {name: value(s) for name, value in columns.items()},
    )
    _draw(plan.shown, rows, choices.plot, f"{schema.name}: {plan.objective}")
    if choices.format is Format.JSON:
        document = plan_document(plan) | {"frontier": rows}
        if choices.robustness:
            document["robustness"] = {
                "loads": [asdict(at) for at in over_loads(plan)],
                "losses": [asdict(loss) for loss in losses(plan)],
            }
        print(json.dumps(document, indent=1))
    elif choices.format is Format.CSV:
        _print_csv(rows)
    else:
        console = stdout()
        console.print(plan_table(plan, loads(plan)))
        console.print(frontier_table(plan.shown, plan.schedule, columns, device))
        console.print(frontier_sketch(plan.shown, plan.schedule))
        if choices.explain:
            with _progress("asking what more would bring"):
                gains = marginals(plan, space)
            console.print(explanation(plan, loads(plan), runner_up(plan), gains))
        if choices.robustness:
            console.print(robustness_table(over_loads(plan), losses(plan)))
    return True


def run_what_if(
    schema_path: Path, pool_path: Path, varied: Sequence[str], choices: PlanChoices
) -> None:
    """Prints a plan per value of every varied key."""
    changes = [parse_vary(text) for text in varied]
    schema_text = read_user_text(schema_path, "schema", "see examples/schemas/")
    pool_text = read_user_text(pool_path, "pool", "see examples/pools/")
    total = 1 + sum(len(vary.values) for vary in changes)
    with _progress("planning again and again") as told:
        done = itertools.count(1)

        measured = _measured(choices)

        def make(schema: RagSchema, pool: Pool) -> Plan | Infeasible:
            plan = _made(schema, with_profiles(pool, measured), choices, None)
            told(next(done) / total)
            return plan

        outcomes = what_if(schema_text, pool_text, changes, make)
    rows = [outcome_row(outcome) for outcome in outcomes]
    if choices.format is Format.JSON:
        print(json.dumps(rows, indent=1))
    elif choices.format is Format.CSV:
        _print_csv(rows)
    else:
        stdout().print(what_if_table(rows))


def _space(choices: PlanChoices) -> SearchSpace:
    return SearchSpace(
        counts=_one_of(Counts, choices.counts, "counts"),
        sharing=_one_of(Sharing, choices.sharing, "sharing"),
        decoding=_one_of(Decoding, choices.decode, "decode"),
    )


def _made(
    schema: RagSchema, pool: Pool, choices: PlanChoices, told: Callable[[float], None] | None
) -> Plan | Infeasible:
    objective = _one_of(Objective, choices.objective, "objective")
    limit_s = math.inf if choices.time_limit_s is None else choices.time_limit_s
    axes = _axes(choices.axes)
    return make_plan(schema, pool, objective, _space(choices), told, axes, limit_s)


def _pool(path: Path, choices: PlanChoices) -> Pool:
    if str(path) != "local":
        return with_profiles(load_pool(path), _measured(choices))
    if len(choices.profiles) > 1 or any("=" in text for text in choices.profiles):
        raise InvalidInput(
            "this machine has one profile", field="profile", hint="--profile profile.json"
        )
    found = [read_profile(Path(text)) for text in choices.profiles]
    profile = found[0] if found else None
    return local_pool(this_machine(), profile, choices.allow_extrapolation)


def _measured(choices: PlanChoices) -> dict[str, Measured]:
    """Profiles by the device that they stand for, as they were typed."""
    found: dict[str, Measured] = {}
    for text in choices.profiles:
        device, _, path = text.partition("=")
        if not device or not path:
            raise InvalidInput(
                f"{text!r} names no device and file", field="profile", hint="l4=profile.json"
            )
        if device in found:
            raise InvalidInput(
                f"{device!r} has two profiles", field="profile", hint="give one for each device"
            )
        found[device] = Measured(read_profile(Path(path)), choices.allow_extrapolation)
    return found


def run_tables(tables: Path, limits: Path, format_: Format, plot: Path | None) -> None:
    """Prints the frontier of stage tables."""
    problem = problem_from_tables(tables, read_limits(limits))
    with _progress("searching schedules") as told:
        points = search(problem, told).points
    _draw(points, frontier_rows(points), plot, tables.name)
    if format_ is Format.JSON:
        print(json.dumps(frontier_rows(points), indent=1))
    elif format_ is Format.CSV:
        _print_csv(frontier_rows(points))
    else:
        stdout().print(frontier_table(points, None))
        stdout().print(frontier_sketch(points, None))


def run_compare(first: Path, second: Path) -> None:
    """Prints two plans side by side."""
    stdout().print(comparison_table(read_plan(first), read_plan(second)))


def run_reproduce(paper: str, plot: Path | None) -> None:
    """Prints and draws a paper's figures beside ours."""
    from ragschema.planner.reproduce import chameleon, rago

    if paper == "rago":
        title = "RAGO (arXiv 2503.14649), calibration rago"
        with _progress("searching schedules"):
            figures = [*rago.table_4(), *rago.headlines()]
    elif paper == "chameleon":
        title = "Chameleon (arXiv 2310.09949), its own latencies as input"
        figures = [*chameleon.shares(), *chameleon.growth()]
    else:
        raise InvalidInput(
            f"{paper!r} is not reproduced", field="paper", hint="use rago or chameleon"
        )
    stdout().print(figures_table(title, figures))
    if plot is not None:
        from coordinator.cli.plan_plot import draw_figures

        draw_figures(title, figures, plot)


def _one_of(kind: type[_E], value: str, field: str) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(member) for member in kind)
        raise InvalidInput(
            f"{value!r} is no {field}", field=field, hint=f"use one of {known}"
        ) from error


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, on a terminal only; yields what takes the share done."""
    columns = (TextColumn(what), BarColumn(), TimeElapsedColumn())
    console = stderr()
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _axes(typed: str | None) -> tuple[Axis, ...] | None:
    if typed is None:
        return None
    names = [name.strip() for name in typed.split(",") if name.strip()]
    return tuple(_one_of(Axis, name, "axes") for name in names)


def _columns(plan: Plan) -> dict[str, Callable[[Schedule], float]]:
    """What a plan's axes ask for beside TTFT and QPS per chip."""
    output = plan.mix.output
    columns: dict[str, Callable[[Schedule], float]] = {}
    if Axis.TPOT in plan.axes:
        columns["tpot_s"] = lambda s: answer_s(plan.problem, s) / output
    for which, rate in enumerate(plan.rates):
        if rate is Rate.PER_COST:
            columns["cost_per_1000"] = _over(1000 / 3600, which)
        elif rate is Rate.PER_WATT:
            columns["energy_j"] = _over(1.0, which)
    return columns


def _over(factor: float, which: int) -> Callable[[Schedule], float]:
    return lambda schedule: factor / schedule.values[which]


def _print_csv(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_infeasible(found: Infeasible, format_: Format) -> None:
    if format_ is Format.JSON:
        print(
            json.dumps(
                {
                    "feasible": False,
                    "binding": found.binding,
                    "reached": found.reached,
                    "change": found.change,
                },
                indent=1,
            )
        )
        return
    console = stderr()
    console.print(f"nothing feasible: {found.binding} binds")
    if found.reached is not None:
        console.print(f"the best that can be had is {found.reached:.4g}")
    console.print(f"smallest change: {found.change}")


def _draw(
    points: tuple[Schedule, ...], rows: list[dict[str, Any]], path: Path | None, title: str
) -> None:
    if path is None:
        return
    if path.suffix == ".html":
        from coordinator.cli.plan_page import write_page

        write_page(title, rows, DEFINITIONS, path)
        return
    from coordinator.cli.plan_plot import draw_frontier

    draw_frontier(points, path)
