"""What an ingestion did, as a table, with every skipped file and its reason."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.cli.console import printable
from coordinator.ingest.spec import IngestSummary

_MAX_SKIPPED_SHOWN = 50


def show_summary(console: Console, collection: str, summary: IngestSummary) -> None:
    """Counts, skipped files, notes."""
    table = Table(title=f"collection {collection}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    index = {"exact": "exact vectors", "ivfpq": "IVF-PQ"}[summary.index]
    rows = (
        ("documents added", summary.added),
        ("documents updated", summary.updated),
        ("documents unchanged", summary.unchanged),
        ("documents deleted", summary.deleted),
        ("files skipped", len(summary.skipped)),
        ("chunks written", summary.chunks),
        ("chunks in the collection", summary.live_rows),
        ("index", index),
        ("generation", summary.generation),
        ("seconds", f"{summary.seconds:.1f}"),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    for skipped in summary.skipped[:_MAX_SKIPPED_SHOWN]:
        line = f"skipped {printable(skipped.path)}: {printable(skipped.reason)}"
        console.print(Text(line, style="yellow"))
    more = len(summary.skipped) - _MAX_SKIPPED_SHOWN
    if more > 0:
        console.print(Text(f"... and {more} more were skipped", style="yellow"))
    for note in summary.notes:
        console.print(f"note: {printable(note)}")
