"""A load's report as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.console import printable
from coordinator.load.report import DEFINITIONS, LoadReport, Objectives, Summary

#: Above it the load generator is likely what was measured.
_BUSY_CLIENT = 0.8


def load_tables(report: LoadReport, objectives: Objectives) -> Group:
    """Latencies, stages, rates and shares, errors, and what to take with care."""
    parts: list[RenderableType] = []
    if report.metrics:
        parts.append(_summaries("latency, ms", report.metrics))
    if report.stages_ms:
        parts.append(_summaries("stages as the endpoint reports them, ms", report.stages_ms))
    parts.append(_rates(report, objectives))
    if report.errors:
        errors = Table(title="errors", title_justify="left")
        for column in ("kind", "requests", "the first of them"):
            errors.add_column(column)
        for kind, found in report.errors.items():
            errors.add_row(printable(kind), str(found.count), printable(found.example))
        parts.append(errors)
    parts.extend(_definitions(report))
    return Group(*parts, *(Text(f"note: {line}") for line in _notes(report)))


def _summaries(title: str, rows: Mapping[str, Summary]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for column in ("p50", "p90", "p99", "max", "mean"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = [f"{value:,.2f}" for value in (row.p50, row.p90, row.p99, row.max, row.mean)]
        table.add_row(printable(name.removesuffix("_ms")), *cells)
    return table


def _rates(report: LoadReport, objectives: Objectives) -> Table:
    table = Table(title="rates and shares", title_justify="left", show_header=False)
    coverage = report.coverage
    if report.offered_per_s is not None:
        table.add_row("offered", f"{report.offered_per_s:,.2f} requests/s")
    table.add_row("answered", f"{report.requests_per_s:,.2f} requests/s")
    table.add_row("output", f"{report.output_tokens_per_s:,.1f} tokens/s")
    if report.goodput_per_s is not None and report.goodput_share is not None:
        figures = f"{report.goodput_per_s:,.2f} requests/s, {report.goodput_share:.1%} of planned"
        table.add_row("goodput", f"{figures}, {_kept(objectives)}")
    table.add_row("sent", f"{coverage.sent_share:.1%}, {coverage.sent} of {coverage.planned}")
    table.add_row("on time", f"{coverage.on_time_share:.1%}")
    completed = f"{coverage.completed} of {coverage.planned}"
    table.add_row("completed", f"{coverage.completed_share:.1%}, {completed}")
    return table


def _kept(objectives: Objectives) -> str:
    limits = (
        ("ttft", objectives.ttft_ms),
        ("tpot", objectives.tpot_ms),
        ("e2e", objectives.e2e_ms),
    )
    return ", ".join(f"{name} <= {ms:g} ms" for name, ms in limits if ms is not None)


def _definitions(report: LoadReport) -> list[Text]:
    told = [*report.metrics, "requests_per_s", "on_time_share", "completed_share"]
    told += ["goodput_per_s"] if report.goodput_per_s is not None else []
    return [Text(f"{name.removesuffix('_ms'):<16}{DEFINITIONS[name]}") for name in told]


def _notes(report: LoadReport) -> list[str]:
    notes = []
    tokens, completed = report.tokens, report.coverage.completed
    if report.stopped:
        notes.append("interrupted: the figures are of what came until then")
    if report.without_text:
        notes.append(f"{report.without_text} answers have tokens and no text: they have no TTFT")
    if report.degraded:
        notes.append(f"{report.degraded} answers are from a part of the collection")
    if tokens.output_counted < completed:
        missing = completed - tokens.output_counted
        notes.append(f"{missing} answers came without usage: pieces stand for their tokens")
    if report.client_cpu_share > _BUSY_CLIENT:
        notes.append(
            f"the load generator was busy {report.client_cpu_share:.0%} of the time: its own"
            " delays are part of the figures"
        )
    return notes
