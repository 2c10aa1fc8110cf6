"""Answers, passages and timings as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.cli.console import printable

_SNIPPET_CHARS = 240
_STAGES = ("queue", "embed", "probe", "scan", "merge", "prompt", "first_token", "total")
Json = Mapping[str, Any]


def show_passages(console: Console, passages: Sequence[Json]) -> None:
    """Passages or citations, numbered, each with its place and the head of its text."""
    for position, passage in enumerate(passages, start=1):
        number = passage.get("number", position)
        place = f"{passage['document_id']} [{passage['start']}:{passage['end']}]"
        headings = " > ".join(str(h) for h in passage["headings"])
        head = Text(f"[{number}] ", style="bold cyan")
        head.append(printable(str(passage["title"])), style="bold")
        console.print(head.append(f"  score {passage['score']:.3f}", style="dim"))
        where = f"{place}  {headings}" if headings else place
        console.print(Text(f"    {printable(where)}", style="dim"))
        console.print(Text(textwrap.indent(snippet(str(passage["text"])), "    ")))


def snippet(text: str, limit: int = _SNIPPET_CHARS) -> str:
    """The head of a text on one line."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def show_coverage(console: Console, coverage: Json) -> None:
    """A warning when part of the collection did not answer; nothing when all did."""
    if coverage["fraction"] < 1.0:
        missing = ", ".join(coverage["missing"]) or "unknown shards"
        text = f"partial: {coverage['fraction']:.0%} of the collection answered, without {missing}"
        console.print(Text(text, style="yellow"))


def timings_table(rows: Sequence[tuple[str, Json]]) -> Table:
    """Milliseconds per stage, a line per request; "-" where a stage was not passed."""
    table = Table(title="stage timings in ms", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("request", no_wrap=True)
    for stage in _STAGES:
        table.add_column(stage.replace("_", " "), justify="right")
    for name, timings in rows:
        table.add_row(name, *(_ms(timings.get(f"{stage}_ms")) for stage in _STAGES))
    return table


def _ms(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"
