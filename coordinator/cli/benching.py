"""What ``ragrig bench load`` does: plans, drives behind a progress bar, reports."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from coordinator.cli.console import stderr, stdout
from coordinator.cli.load_choices import (
    RAGRIG_MODEL,
    LoadChoices,
    check_choices,
    objectives_of,
    parse_extra,
    plan_of,
)
from coordinator.cli.load_plot import check_plot, draw_load
from coordinator.cli.load_view import load_tables
from coordinator.cli.rest import RestClient
from coordinator.cli.target import Target
from coordinator.load.client import LoadClient
from coordinator.load.drive import LoadRun, Outcome, Sending, Told, run_load, warm_up
from coordinator.load.report import DEFINITIONS, LoadReport, e2e_ms, make_report, tpot_ms, ttft_ms
from coordinator.load.workload import LoadPlan
from ragschema.errors import NotFound, UpstreamError
from ragschema.userfile import write_user_text
from ragschema.version import SOFTWARE_VERSION

FORMAT: Final = 1


def run_bench_load(target: Target, choices: LoadChoices) -> bool:
    """Prints the report; False: it was interrupted, and tells of what came until then.

    Raises:
        RagrigError: of the options, the trace, or an endpoint that answers nothing.
    """
    check_choices(choices)
    check_plot(choices.plot)
    objectives, extra = objectives_of(choices), parse_extra(choices.body)
    model = choices.model or _first_model(target)
    plan = plan_of(choices, model)
    sending = Sending(
        model,
        choices.concurrency or choices.max_in_flight,
        choices.timeout_s,
        choices.duration_s,
        extra,
    )
    started = datetime.datetime.now(datetime.UTC)
    run = asyncio.run(_run(target, plan, sending, choices))
    report = make_report(run, plan, objectives)
    document = _document(target, choices, sending, report, started)
    text = json.dumps(document, indent=1)
    if choices.out is not None:
        write_user_text(choices.out, text + "\n", "out")
    if choices.raw is not None:
        lines = (json.dumps(_row(run, outcome)) for outcome in run.outcomes)
        write_user_text(choices.raw, "".join(f"{line}\n" for line in lines), "raw")
    if choices.plot is not None:
        draw_load(run, report, choices.plot)
    if choices.json:
        print(text)
    else:
        stdout().print(load_tables(report, objectives))
    return not run.stopped


async def _run(target: Target, plan: LoadPlan, sending: Sending, choices: LoadChoices) -> LoadRun:
    connections = sending.max_in_flight
    async with LoadClient(target.url, target.api_key, connections, choices.timeout_s) as client:
        await warm_up(client, plan, sending, choices.warmup)
        with load_bar(plan, sending) as told:
            return await run_load(client, plan, sending, told)


@contextmanager
def load_bar(plan: LoadPlan, sending: Sending) -> Iterator[Told]:
    """A progress bar of a load, on a terminal only; yields what takes each outcome."""
    total: int | None = len(plan.requests)
    if sending.duration_s is not None:
        times = plan.times_s
        total = int((times <= sending.duration_s).sum()) if times is not None else None
    with Progress(
        TextColumn("load"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=stderr(),
        transient=True,
    ) as bars:
        task = bars.add_task("load", total=total, note="")
        failed = 0

        def told(outcome: Outcome, in_flight: int) -> None:
            nonlocal failed
            failed += outcome.failure is not None
            bars.update(task, advance=1, note=f"{in_flight} under way, {failed} failed")

        yield told


def _first_model(target: Target) -> str:
    """The first collection that the endpoint serves as a model, else its first model."""
    with RestClient(target) as rest:
        listed = rest.get("/v1/models").get("data")
    if not isinstance(listed, list) or not all(isinstance(m, dict) for m in listed):
        raise UpstreamError("/v1/models has no list of models", hint="name one with --model")
    names = [str(m.get("id")) for m in listed]
    if not names:
        raise NotFound("the endpoint has no models", hint="name one with --model")
    return next((name for name in names if name.startswith(RAGRIG_MODEL)), names[0])


def _document(
    target: Target,
    choices: LoadChoices,
    sending: Sending,
    report: LoadReport,
    started: datetime.datetime,
) -> dict[str, Any]:
    asked = {
        name: str(value) if value is not None and not isinstance(value, int | float) else value
        for name, value in asdict(choices).items()
        if name not in ("json", "out", "raw", "plot", "body")
    }
    return {
        "format": FORMAT,
        "kind": "load",
        "software": SOFTWARE_VERSION,
        "started": started.isoformat(timespec="seconds"),
        "loop": "open" if choices.concurrency is None else "closed",
        "url": target.url,
        **asked,
        "model": sending.model,
        "extra_body": dict(sending.extra),
        **asdict(report),
        "definitions": dict(DEFINITIONS),
    }


def _row(run: LoadRun, outcome: Outcome) -> dict[str, Any]:
    reply, failure = outcome.reply, outcome.failure
    return {
        "index": outcome.index,
        "planned_s": outcome.planned_s,
        "sent_s": None if reply is None else reply.sent_s - run.started_s,
        "pieces_s": [] if reply is None else [at - run.started_s for at in reply.pieces_s],
        "end_s": None if reply is None else reply.end_s - run.started_s,
        "ttft_ms": ttft_ms(run, outcome),
        "tpot_ms": None if reply is None else tpot_ms(reply),
        "e2e_ms": e2e_ms(run, outcome),
        "prompt_tokens": None if reply is None else reply.prompt_tokens,
        "output_tokens": None if reply is None else reply.output_tokens,
        "stages_ms": {} if reply is None else dict(reply.stages_ms),
        "error": None if failure is None else asdict(failure),
    }
