"""``ragrig demo``: the whole appliance on this machine's own documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    data_dir: Annotated[
        Path,
        typer.Option(
            help="Where the demo keeps its corpus and collection between runs.", metavar="DIR"
        ),
    ] = Path(".ragrig/demo"),
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the rig running afterwards, until Ctrl-C."),
    ] = False,
) -> None:
    """Ingest the docstrings of this machine's Python and ask three questions."""
    from coordinator.demo.run import run_demo

    code = run_demo(data_dir.expanduser().resolve(), keep=keep)
    if code:
        raise typer.Exit(code)
