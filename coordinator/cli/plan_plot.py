"""Frontiers and reproduced figures as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragschema.errors import InvalidInput
from ragschema.planner.reproduce.figure import Figure as PaperFigure
from ragschema.planner.schedule import Schedule


def draw_frontier(points: Sequence[Schedule], path: Path) -> None:
    """QPS per chip over TTFT, with the number of chips beside each point.

    Raises:
        InvalidInput: an unknown format, or the file cannot be written.
    """
    figure, axes = _canvas(path, 4.5)
    ttft_ms = [p.ttft_s * 1e3 for p in points]
    rates = [p.qps_per_chip for p in points]
    axes.step(ttft_ms, rates, where="post", color="#9aa5b1", linewidth=1)
    axes.plot(ttft_ms, rates, "o", color="#1f6feb", markersize=5)
    for x, y, point in zip(ttft_ms, rates, points, strict=True):
        axes.annotate(str(point.chips), (x, y), xytext=(4, -10), textcoords="offset points",
                      fontsize=7, color="#57606a")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("TTFT, ms (mean over a burst)")
    axes.set_ylabel("QPS per chip")
    axes.set_title("Frontier; small numbers: chips in all", fontsize=10)
    axes.grid(True, which="both", color="#eaeef2")
    _save(figure, path)


def draw_figures(title: str, figures: Sequence[PaperFigure], path: Path) -> None:
    """A paper's figures beside ours, as pairs of bars in per cent of the paper's.

    Raises:
        InvalidInput: an unknown format, or the file cannot be written.
    """
    figure, axes = _canvas(path, 1.2 + 0.45 * len(figures))
    places = range(len(figures))
    axes.barh([p - 0.2 for p in places], [100.0] * len(figures), 0.36, color="#9aa5b1")
    ours = [f.ours / f.paper * 100 for f in figures]
    axes.barh([p + 0.2 for p in places], ours, 0.36, color="#1f6feb")
    for place, (one, width) in enumerate(zip(figures, ours, strict=True)):
        axes.text(102, place - 0.2, f"{one.paper:g}", va="center", fontsize=7, color="#57606a")
        axes.text(width + 2, place + 0.2, f"{one.ours:.4g}", va="center", fontsize=7)
    axes.set_yticks(list(places), [f.name for f in figures], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, max([100.0, *ours]) * 1.15)
    axes.set_xlabel("per cent of the printed value; grey: paper, blue: ours", fontsize=8)
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def _canvas(path: Path, height: float) -> tuple[Any, Any]:
    if path.suffix not in (".png", ".svg"):
        raise InvalidInput(
            f"cannot draw {path.name}", field="plot", hint="name a .png, .svg or .html"
        )
    # Slow to import, and most plans are not drawn.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}", field="plot") from error
