"""``ragrig plan``: the best deployment for a workload on a pool of hardware."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coordinator.cli import options
from ragschema.errors import InvalidInput


class Format(enum.StrEnum):
    """How the frontier is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class _SchedulesByDefault(TyperGroup):
    """``ragrig plan FILE`` is ``ragrig plan make FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["make", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


Schema = Annotated[
    Path | None, typer.Argument(help="A RAGSchema: the workload.", metavar="SCHEMA.yaml")
]
PoolFile = Annotated[
    Path | None,
    typer.Option("--pool", help="The hardware; local: this machine.", metavar="POOL.yaml|local"),
]
Goal = Annotated[
    str,
    typer.Option(
        help="max-qps-per-chip, min-ttft, min-cost or min-energy per request (at the schema's"
        " rate where it gives one), or min-chips for it.",
        metavar="GOAL",
    ),
]
Counts = Annotated[
    str,
    typer.Option(help="Accelerators a stage may get: pow2 or every number.", metavar="pow2|every"),
]
Sharing = Annotated[
    str,
    typer.Option(
        help="Accelerators before decode: hybrid (shared where it pays), disaggregated or"
        " collocated.",
        metavar="HOW",
    ),
]
Decode = Annotated[
    str,
    typer.Option(
        help="Accelerators of decode: apart from the others, together with the stages before"
        " it, or either.",
        metavar="HOW",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        help="Two or three of ttft, tpot, qps_per_chip, cost, energy; by default ttft and what"
        " the objective speaks of.",
        metavar="A,B[,C]",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        help="Search so long at most, and say how far off it may be.",
        metavar="SECONDS",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Write the plan.", metavar="plan.yaml")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say what binds, what is idle, what more would bring.")
]
Robust = Annotated[
    bool,
    typer.Option("--robustness", help="Show the plan at other loads, and with a device lost."),
]
As = Annotated[Format, typer.Option("--format", help="table, csv or json.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw the frontier: .png, .svg, or an interactive .html.", metavar="FILE"),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help="Measured latencies of a device of the pool, in place of the model; may stand"
        " several times. With --pool local a file alone.",
        metavar="[DEVICE=]profile.json",
    ),
]
Extrapolate = Annotated[
    bool,
    typer.Option(
        "--allow-extrapolation", help="Use profiles beyond what was measured, less surely."
    ),
]
Tables = Annotated[
    Path | None,
    typer.Option(help="Plan on latencies measured elsewhere.", metavar="FILE.csv"),
]
LimitsFile = Annotated[
    Path | None, typer.Option("--limits", help="Limits for --stage-tables.", metavar="FILE.json")
]


def build() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        cls=_SchedulesByDefault,
        help="Plan a deployment: ragrig plan SCHEMA.yaml --pool POOL.yaml",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(make)
    app.command("what-if")(what_if)
    app.command()(compare)
    app.command()(check)
    app.command()(reproduce)
    app.command("schema")(schema_)
    return app


def make(
    schema: Schema = None,
    pool: PoolFile = None,
    objective: Goal = "max-qps-per-chip",
    counts: Counts = "pow2",
    sharing: Sharing = "hybrid",
    decode: Decode = "apart",
    axes: Axes = None,
    time_limit: TimeLimit = None,
    out: Out = None,
    explain: Explain = False,
    plot: Plot = None,
    format_: As = Format.TABLE,
    robustness: Robust = False,
    profile: Profiles = None,
    allow_extrapolation: Extrapolate = False,
    stage_tables: Tables = None,
    limits: LimitsFile = None,
) -> None:
    """Find the frontier of TTFT and QPS per chip, and the best plan on it.

    Exits with 1 when nothing meets the objectives, saying what to change.
    """
    from coordinator.cli.planning import PlanChoices, run_plan, run_tables

    if stage_tables is not None or limits is not None:
        if stage_tables is None or limits is None or schema is not None:
            raise InvalidInput(
                "--stage-tables and --limits go together, without a schema", field="stage_tables"
            )
        run_tables(stage_tables, limits, format_, plot)
        return
    if schema is None or pool is None:
        raise InvalidInput(
            "a plan needs a workload and a pool",
            field="schema" if schema is None else "pool",
            hint="ragrig plan examples/schemas/case4.yaml --pool examples/pools/rago.yaml",
        )
    choices = PlanChoices(
        objective, counts, sharing, out, explain, plot, format_, axes, time_limit, robustness,
        decode, tuple(profile or ()), allow_extrapolation,
    )  # fmt: skip
    if not run_plan(schema, pool, choices):
        raise typer.Exit(1)


def what_if(
    schema: Annotated[Path, typer.Argument(help="A RAGSchema.", metavar="SCHEMA.yaml")],
    pool: Annotated[Path, typer.Option("--pool", help="The hardware.", metavar="POOL.yaml")],
    vary: Annotated[
        list[str],
        typer.Option(
            help="A key of the schema and values for it, or of the pool file with pool. before"
            " it; may stand several times.",
            metavar="KEY=A,B,C",
        ),
    ],
    objective: Goal = "max-qps-per-chip",
    counts: Counts = "pow2",
    sharing: Sharing = "hybrid",
    decode: Decode = "apart",
    time_limit: TimeLimit = None,
    profile: Profiles = None,
    allow_extrapolation: Extrapolate = False,
    format_: As = Format.TABLE,
) -> None:
    """Plan again with one key changed at a time: load, lengths, hit rate, prices, counts.

    For instance --vary lengths.prompt=512,2048 --vary pool.accelerators.l4.price_per_h=0.4,0.8
    """
    from coordinator.cli.planning import PlanChoices, run_what_if

    choices = PlanChoices(
        objective, counts, sharing, None, False, None, format_, None, time_limit, decode=decode,
        profiles=tuple(profile or ()), allow_extrapolation=allow_extrapolation,
    )  # fmt: skip
    run_what_if(schema, pool, vary, choices)


def compare(
    first: Annotated[Path, typer.Argument(help="A plan.", metavar="A.yaml")],
    second: Annotated[Path, typer.Argument(help="Another one.", metavar="B.yaml")],
) -> None:
    """Show two plans side by side."""
    from coordinator.cli.planning import run_compare

    run_compare(first, second)


def check(
    plan: Annotated[Path, typer.Argument(help="A plan of this machine's.", metavar="plan.yaml")],
    collection: options.Collection = None,
    loads: Annotated[
        str,
        typer.Option(
            help="Shares of the plan's rate, of those that the plan speaks of, and full: as many"
            " requests at once as decode has room for.",
            metavar="A,B,full",
        ),
    ] = "0.5,0.7,full",
    requests: Annotated[int, typer.Option(help="At each load.", min=4, max=100_000)] = 60,
    tolerance: Annotated[
        float,
        typer.Option(
            help="Per cent: half of the errors must be within it, nine of ten within twice of it.",
            min=0.1,
        ),
    ] = 12.5,
    seed: Annotated[int, typer.Option(help="Of arrivals and questions.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with plots.", metavar="FILE.html")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: options.Config = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    api_key_file: options.ApiKeyFile = None,
) -> None:
    """Put the plan's loads on the rig that runs it, and compare what was promised.

    Exits with 1 when the plan is further off than the tolerance.
    """
    from coordinator.cli.plan_checking import CheckChoices, run_check
    from coordinator.cli.target import find_target

    target = find_target(url, config, data_dir, api_key_file)
    choices = CheckChoices(plan, collection, loads, requests, tolerance, seed, report, json_)
    if not run_check(target, choices):
        raise typer.Exit(1)


def reproduce(
    paper: Annotated[str, typer.Argument(help="rago or chameleon.", metavar="PAPER")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw the figures: .png or .svg.", metavar="FILE")
    ] = None,
) -> None:
    """Print a paper's figures beside ours."""
    from coordinator.cli.planning import run_reproduce

    run_reproduce(paper, plot)


def schema_() -> None:
    """Print the JSON Schema of a RAGSchema file, for editors."""
    import json

    from ragschema.workload import json_schema

    print(json.dumps(json_schema(), indent=1))
