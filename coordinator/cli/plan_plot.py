"""The frontier as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragschema.errors import InvalidInput
from ragschema.planner.schedule import Schedule


def draw_frontier(points: Sequence[Schedule], path: Path) -> None:
    """QPS per chip over TTFT, with the number of chips beside each point.

    Raises:
        InvalidInput: an unknown format, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise InvalidInput(f"cannot draw {path.name}", field="plot", hint="name a .png or .svg")
    # Slow to import, and most plans are not drawn.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
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
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}", field="plot") from error
