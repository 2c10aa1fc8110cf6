"""The picture of `bench.retrieval`: queries per second over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import note
from bench.retrieval_build import peer
from bench.retrieval_plan import Plan
from bench.retrieval_race import Point, frontier
from ragschema.errors import Unavailable

_BATCH = 64
_LOWEST_REFINED = 0.80
_INK, _GRID, _GREY = "#30363d", "#e4e7ea", "#8a929a"
#: Contestant kinds by prefix, longest first: label and colour.
_STYLES = (
    ("ragrig", "ragrig", "#0b6e99"),
    ("ivfpq", "faiss IVFPQ", "#8a929a"),
    ("fastscan-32x4", "faiss FastScan 32x4 (16 B)", "#d28b26"),
    ("fastscan-64x4", "faiss FastScan 64x4 (32 B)", "#b5513b"),
    ("scann", "ScaNN", "#6b8f3c"),
    ("hnswlib", "hnswlib", "#7a5ea8"),
)


def draw(
    path: Path, plan: Plan, codes: Sequence[Point], chosen: Mapping[str, Sequence[Point]]
) -> None:
    """Writes the picture as SVG; without matplotlib it says so and leaves the old one."""
    try:
        matplotlib = peer("matplotlib")
        matplotlib.use("Agg")
        pyplot = peer("matplotlib.pyplot")
    except Unavailable as error:
        note(f"no picture: {error}")
        return
    # No random ids and no date: the same figures give the same file.
    matplotlib.rcParams.update(
        {"svg.hashsalt": "ragrig", "font.size": 10, "text.color": _INK, "axes.labelcolor": _INK}
    )
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    _curves(left, _by_style([p for p in codes if p.batch == _BATCH]))
    left.set_title(f"Codes alone: nprobe {plan.probes[0]} to {plan.probes[-1]}", loc="left")
    everyone = [p for points in chosen.values() for p in points]
    _curves(right, _by_style([p for p in everyone if p.recall >= _LOWEST_REFINED]))
    right.axvline(plan.wanted_recall, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    right.set_title("Rescored with vectors", loc="left")
    _axes(left, plan)
    _axes(right, plan)
    figure.supxlabel(
        f"{plan.rows:,} x {plan.dim}, nlist {plan.nlist}; ragrig and IVFPQ share the same"
        f" {plan.m}-byte codes; batch {_BATCH}, one thread; up and right is better",
        fontsize=9,
        color=_GREY,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    note(f"drew {path}")


def _by_style(points: Sequence[Point]) -> list[tuple[str, str, list[Point]]]:
    """Label, colour and frontier of each kind that has points; the best of its builds."""
    curves = []
    for prefix, label, colour in _STYLES:
        mine = frontier(p for p in points if p.contestant.name.startswith(prefix))
        if mine:
            curves.append((label, colour, mine))
    return curves


def _curves(axes: Any, curves: Sequence[tuple[str, str, list[Point]]]) -> None:
    for label, colour, points in curves:
        ours = label == "ragrig"
        axes.plot(
            [p.recall for p in points],
            [p.qps for p in points],
            color=colour,
            label=label,
            linewidth=2.4 if ours else 1.5,
            marker="o",
            markersize=4.5 if ours else 3,
            zorder=3 if ours else 2,
        )


def _axes(axes: Any, plan: Plan) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel(f"recall@{plan.k}")
    axes.set_ylabel("queries per second")
    axes.grid(True, which="both", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.legend(frameon=False, fontsize=9)
