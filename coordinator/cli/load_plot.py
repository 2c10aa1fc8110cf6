"""A load as a picture: latency over time, its distribution, and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coordinator.load.drive import LoadRun
from coordinator.load.report import LoadReport, e2e_ms, ttft_ms
from ragschema.errors import InvalidInput

_BINS = 40


def check_plot(path: Path | None) -> None:
    """Raises InvalidInput for a format that cannot be drawn."""
    if path is not None and path.suffix not in (".png", ".svg"):
        raise InvalidInput(f"cannot draw {path.name}", field="plot", hint="name a .png or .svg")


def draw_load(run: LoadRun, report: LoadReport, path: Path) -> None:
    """Writes the picture.

    Raises:
        InvalidInput: the file cannot be written.
    """
    # Slow to import, and most loads are not drawn.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8), layout="constrained")
    over_time, shares, rates = figure.subplots(3, 1)
    _latencies(over_time, shares, run)
    _rates(rates, run, report)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error}", field="plot") from error


def _latencies(over_time: Any, shares: Any, run: LoadRun) -> None:
    whole = [o for o in run.outcomes if o.failure is None]
    planned_s = [o.planned_s for o in whole]
    for name, color, measure in (("TTFT", "#1f6feb", ttft_ms), ("whole", "#9a6700", e2e_ms)):
        values = [measure(run, o) or 0.0 for o in whole]
        over_time.plot(planned_s, values, ".", color=color, markersize=4, label=name)
        ordered = np.sort(values)
        shares.step(ordered, (np.arange(len(ordered)) + 1) / max(1, len(ordered)), color=color,
                    where="post", label=name)  # fmt: skip
    for failed in (o for o in run.outcomes if o.failure is not None):
        over_time.axvline(failed.planned_s, color="#d1242f", alpha=0.3, linewidth=0.8)
    over_time.set_xlabel("planned arrival, s (red: failed)")
    over_time.set_ylabel("ms from there")
    shares.set_xlabel("ms from the planned arrival")
    shares.set_ylabel("share of answers")
    for axes in (over_time, shares):
        axes.grid(True, color="#eaeef2")
        if whole:
            axes.legend(fontsize=8)


def _rates(axes: Any, run: LoadRun, report: LoadReport) -> None:
    edges = np.linspace(0.0, max(run.wall_s, 1e-9), _BINS + 1)
    ends = [o.reply.end_s - run.started_s for o in run.outcomes if o.reply and not o.failure]
    series = (("planned", "#9aa5b1", [o.planned_s for o in run.outcomes]),
              ("answered", "#1a7f37", ends))  # fmt: skip
    for name, color, times in series:
        counts, _ = np.histogram(times, edges)
        axes.stairs(counts / (edges[1] - edges[0]), edges, color=color, label=name)
    axes.set_xlabel("s")
    axes.set_ylabel("requests/s")
    axes.set_title(
        f"{report.requests_per_s:.2f} answered/s, {report.coverage.completed_share:.0%} of the"
        " plan completed",
        fontsize=9,
    )
    axes.grid(True, color="#eaeef2")
    axes.legend(fontsize=8)
