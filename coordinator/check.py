"""Holds a plan to what it promised: predicted beside measured, by metric and by stage.

Stages are compared apart, so that errors which cancel in a sum are seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from coordinator.load.report import LoadReport
from ragschema.errors import InvalidInput
from ragschema.planner.plan_file import StoredPlan

#: What a metric of a plan is called in a load's report, and what it means.
_METRICS: Final = {
    "ttft_s": ("ttft_ms", "from the planned arrival to the first piece of text"),
    "tpot_s": ("tpot_ms", "seconds per output token after the first"),
    "e2e_s": ("e2e_ms", "from the planned arrival to the last event"),
}
#: Stages before prefill, and the parts of them that ragrig's answers tell of.
_PARTS: Final = {
    "rewrite": ("rewrite",),
    "retrieval": ("embed", "probe", "scan", "merge"),
    "rerank": ("rerank",),
}
_BEFORE_FIRST: Final = ("queue", "prompt")


@dataclass(frozen=True)
class Line:
    """One figure.

    Attributes:
        load: share of the plan's rate, or ``full`` of a closed loop.
        what: a metric, or a stage.
        low, high: what the plan's intervals make of the prediction.
    """

    load: str
    what: str
    definition: str
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def error_pct(self) -> float:
        """Measured over predicted, less 1, in per cent; above 0: slower, or more, than planned."""
        return 100.0 * (self.measured / self.predicted - 1.0)

    def kept(self, tolerance_pct: float) -> bool:
        """Whether it is within the interval, or as near as is tolerated."""
        return self.low <= self.measured <= self.high or abs(self.error_pct) <= tolerance_pct


def at_load(plan: StoredPlan, point: Mapping[str, float], report: LoadReport) -> list[Line]:
    """Metrics and stages at one operating point.

    Raises:
        InvalidInput: no answer was whole, so that there is nothing to compare.
    """
    load = f"{point['load']:.0%}"
    if "ttft_ms" not in report.metrics:
        raise InvalidInput(
            f"no request was answered at a load of {load}",
            field="url",
            hint="see the errors of ragrig bench load",
        )
    found = []
    for name, (reported, definition) in _METRICS.items():
        measured = report.metrics.get(reported)
        if measured is None:
            continue
        for percentile in ("p50", "p99"):
            predicted = point[f"{name}_{percentile}"]
            low, high = _interval(plan, name, predicted)
            value = getattr(measured, percentile) / 1e3
            found.append(
                Line(load, f"{name} {percentile}", definition, predicted, low, high, value)
            )
    return found + _stages(plan, load, point, report)


def _stages(
    plan: StoredPlan, load: str, point: Mapping[str, float], report: LoadReport
) -> list[Line]:
    """Mean seconds that a request spends in each stage, waiting included."""
    planned = _planned_stages(point)
    told = {name: summary.mean / 1e3 for name, summary in report.stages_ms.items()}
    measured = {
        stage: sum(told.get(part, 0.0) for part in parts) for stage, parts in _PARTS.items()
    }
    ttft_s = report.metrics["ttft_from_sent_ms"].mean / 1e3
    before_s = sum(measured.values()) + sum(told.get(part, 0.0) for part in _BEFORE_FIRST)
    measured["prefill"] = max(0.0, ttft_s - before_s)
    measured["decode"] = report.metrics["e2e_from_sent_ms"].mean / 1e3 - ttft_s
    found = []
    for stage, predicted in planned.items():
        if stage not in measured or not predicted > 0:
            continue
        low, high = _interval(plan, "tpot_s" if stage == "decode" else "ttft_s", predicted)
        what = f"stage {stage}"
        found.append(Line(load, what, _STAGE, predicted, low, high, measured[stage]))
    return found


_STAGE: Final = "mean seconds of a request there, waiting included"


def _planned_stages(point: Mapping[str, float]) -> dict[str, float]:
    """By stage as it is measured: a rewriter's two stages are one."""
    found: dict[str, float] = {}
    for key, seconds in point.items():
        if key.startswith("stage_s."):
            name = key.removeprefix("stage_s.")
            name = "rewrite" if name.startswith("rewrite_") else name
            found[name] = found.get(name, 0.0) + seconds
    return found


def at_full(plan: StoredPlan, report: LoadReport) -> Line:
    """The plan's rate against what is answered per second in a closed loop."""
    predicted = plan.predicted["qps"]
    low, high = _interval(plan, "qps", predicted)
    definition = "requests per second that are answered while as many wait as decode has room for"
    measured = report.requests_per_s if report.steady_per_s is None else report.steady_per_s
    return Line("full", "qps", definition, predicted, low, high, measured)


def _interval(plan: StoredPlan, name: str, predicted: float) -> tuple[float, float]:
    """The plan's interval of a figure, as shares of it, around a prediction."""
    known = plan.intervals.get(name)
    base = plan.predicted.get(name)
    if known is None or not base:
        return predicted, predicted
    return predicted * known[0] / base, predicted * known[1] / base


@dataclass(frozen=True)
class Verdict:
    """All lines together.

    Attributes:
        median_abs_error_pct, p90_abs_error_pct: over the lines.
        kept: lines within their interval or the tolerance.
    """

    lines: tuple[Line, ...]
    tolerance_pct: float
    median_abs_error_pct: float
    p90_abs_error_pct: float
    kept: int

    @property
    def passed(self) -> bool:
        """Half of the errors are within the tolerance, and nine of ten within twice of it."""
        near = self.median_abs_error_pct <= self.tolerance_pct
        return near and self.p90_abs_error_pct <= 2 * self.tolerance_pct


def judge(lines: list[Line], tolerance_pct: float) -> Verdict:
    """The verdict on a plan."""
    errors = np.abs([line.error_pct for line in lines])
    median, most = np.quantile(errors, (0.5, 0.9)).tolist()
    kept = sum(line.kept(tolerance_pct) for line in lines)
    return Verdict(tuple(lines), tolerance_pct, median, most, kept)
