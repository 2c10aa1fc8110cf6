"""What ``ragrig index`` shows."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from coordinator.cli.console import printable
from coordinator.indexes.importing import Imported
from coordinator.indexes.tuning import Measured, Tuned
from ragschema.storage.manifest import CurvePoint, IndexRef


def show_imported(console: Console, imported: Imported) -> None:
    """The new collection, what may differ from faiss, and what to do next."""
    manifest = imported.manifest
    index = manifest.index
    assert index is not None, "imports have an index"
    table = Table(
        title=f"collection {manifest.collection}", title_justify="left", show_header=False
    )
    table.add_column("what")
    table.add_column("value", justify="right")
    rows = (
        ("vectors", manifest.live_rows),
        ("dimensions", manifest.dim),
        ("metric", manifest.metric),
        ("lists", index.nlist),
        ("bytes per code", index.m),
        ("rotated", "yes" if index.rotated else "no"),
        ("searched with", settings(index.nprobe, index.refine_factor)),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    for note in imported.notes:
        console.print(f"note: {printable(note)}")
    if index.nprobe < index.nlist:
        console.print(
            f"nprobe is the file's; measure and set it with"
            f" `ragrig index tune {manifest.collection} --recall 0.95`"
        )


def settings(nprobe: int, refine_factor: int | None) -> str:
    """Index settings in words."""
    lists = "1 list" if nprobe == 1 else f"{nprobe} lists"
    if refine_factor is None:
        return lists
    return f"{lists}, {refine_factor} x k rescored"


def show_tuned(console: Console, tuned: Tuned, wanted: float, k: int) -> None:
    """The curve, the choice, and what would help where the wish is out of reach."""
    measured = tuned.measured
    index = tuned.manifest.index
    assert index is not None, "tuned collections have an index"
    console.print(_table(measured.at_k or measured.curve, k, measured.queries))
    chosen = settings(index.nprobe, index.refine_factor)
    if measured.reached:
        console.print(f"recall {wanted:g} is reached with {chosen} ({measured.recall:.3f})")
        return
    console.print(
        f"recall {wanted:g} is out of reach: {measured.recall:.3f} with {chosen}, now set"
    )
    for help_ in _helps(measured, index):
        console.print(f"what would help: {help_}")


def _table(curve: tuple[CurvePoint, ...], k: int, queries: int) -> Table:
    factors = sorted({p.refine_factor for p in curve}, key=lambda f: f or 0)
    table = Table(title=f"recall@{k} of {queries} queries", title_justify="left")
    table.add_column("lists", justify="right")
    table.add_column("codes per query", justify="right")
    for factor in factors:
        table.add_column("scan" if factor is None else f"x{factor}", justify="right")
    for nprobe in sorted({p.nprobe for p in curve}):
        points = {p.refine_factor: p for p in curve if p.nprobe == nprobe}
        codes = f"{next(iter(points.values())).codes_per_query:.0f}"
        cells = [f"{points[f].recall_at_10:.3f}" if f in points else "" for f in factors]
        table.add_row(str(nprobe), codes, *cells)
    return table


def _helps(measured: Measured, index: IndexRef) -> list[str]:
    helps = []
    if not measured.refines:
        helps.append("refinement, which needs stored vectors: ingest with them kept")
    helps.append(f"longer codes: a larger M than {index.m}")
    return helps
