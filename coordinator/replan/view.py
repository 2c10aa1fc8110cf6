"""What a user is told of live re-planning: in ``/v1/status``, in logs and in metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.replan.drift import Out
from coordinator.replan.observe import Observed


@dataclass(frozen=True)
class Told:
    """One conclusion.

    Attributes:
        at: UTC, ISO 8601.
        kind: ``batches`` on the processes that run, other ``processes``, or ``none``: the
            plan stays.
        applied: whether it was deployed.
        reason: what was observed against the plan's range.
        changes: of settings, from and to.
        before_s, after_s: mean seconds from arrival to the last token that are predicted at
            the observed rate, times how far the worst objective is missed.
        plan: file of the plan that is told of.
        note: why it was not deployed; empty: nothing stood in its way.
    """

    at: str
    kind: str
    applied: bool
    reason: str
    changes: tuple[str, ...]
    before_s: float
    after_s: float
    plan: str
    note: str = ""

    @property
    def gain(self) -> float:
        """Times better."""
        return self.before_s / self.after_s

    def __str__(self) -> str:
        done = "deployed" if self.applied else "proposed"
        if self.kind == "none":
            done = "kept the plan"
        changes = f": {'; '.join(self.changes)}" if self.changes else ""
        note = f" ({self.note})" if self.note else ""
        return (
            f"{done}, since {self.reason}{changes}; predicted {self.before_s:.3g} s ->"
            f" {self.after_s:.3g} s, {self.gain:.2f} times better{note}"
        )


@dataclass(frozen=True)
class View:
    """The state of live re-planning.

    Attributes:
        state: ``watching``, ``planning`` or ``deploying``.
        plan: file of the deployed plan.
        observed: in the window; None: too few requests to tell.
        out: figures that are out of the plan's range.
        dwell_left_s: for which the plan stays in any case.
        last: the last conclusion.
        error: of the last attempt, when it failed.
    """

    mode: str
    state: str
    plan: str
    observed: Observed | None = None
    out: tuple[Out, ...] = ()
    dwell_left_s: float = 0.0
    last: Told | None = None
    error: str | None = None
    asked: int = 0
    proposed: int = 0
    failed: int = 0
    applied: Mapping[str, int] = field(default_factory=dict)


class ReplanCollector(Collector):
    """Exports a view whenever somebody scrapes."""

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view

    def describe(self) -> list[Metric]:
        """Nothing is asked of the view when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        view = self._view()
        for name, what, value in (
            ("plannings", "Times a better plan was looked for", view.asked),
            ("proposals", "Better plans that were found", view.proposed),
            ("failures", "Plannings and deployments that failed", view.failed),
        ):
            yield CounterMetricFamily(f"ragrig_replan_{name}", what, value=value)
        changes = CounterMetricFamily(
            "ragrig_replan_changes", "Better plans that were deployed", labels=["kind"]
        )
        for kind in ("batches", "processes"):
            changes.add_metric([kind], view.applied.get(kind, 0))
        yield changes
        yield GaugeMetricFamily(
            "ragrig_replan_out_of_range", "Figures out of the plan's range", value=len(view.out)
        )
        if view.last is not None:
            seconds = GaugeMetricFamily(
                "ragrig_replan_predicted_seconds",
                "Predicted mean seconds of an answer, of the last conclusion",
                labels=["plan"],
            )
            seconds.add_metric(["before"], view.last.before_s)
            seconds.add_metric(["after"], view.last.after_s)
            yield seconds
