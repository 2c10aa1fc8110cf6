"""One finding of the doctor as lines of text."""

from __future__ import annotations

from rich.text import Text

from coordinator.cli.console import printable
from coordinator.doctor.rows import Level, Row

_NAME_WIDTH = 18
_STATE_WIDTH = 10


def row_text(row: Row) -> Text:
    """What was found, what it is for, and what to do when there is something to do."""
    style = {Level.OK: "green", Level.OPTIONAL: "yellow", Level.PROBLEM: "bold red"}[row.level]
    indent = "\n" + " " * (_NAME_WIDTH + _STATE_WIDTH)
    text = Text(f"{row.name:<{_NAME_WIDTH}}", style="bold")
    text.append(f"{row.level.value:<{_STATE_WIDTH}}", style=style)
    text.append(printable(row.found), style="default")
    text.append(f"{indent}for: {row.enables}", style="dim")
    if row.install:
        text.append(f"{indent}to do: {row.install}", style=style)
    return text
