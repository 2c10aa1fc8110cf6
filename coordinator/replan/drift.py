"""When what is observed leaves a plan's range, and when something may be done about it.

A figure is out of the range once it stays a factor ``enter`` beyond it, and back once it is
within a factor ``leave``. What was decided on once is not decided on again before it changes
by ``enter``, and plans stay for a dwell that doubles while they follow each other closely.
Times come in as arguments: the tests play years of load in a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.replan.observe import STAGES, Observed
from coordinator.replan.settings import ReplanSettings
from ragschema.planner.plan_file import StoredPlan

#: Means of a window vary by chance, lengths as much as that around the plan's.
_LENGTHS: Final = 1.2
#: Stage times are out where they would change a plan, not where a model is a little off; what
#: comes on top of short ones, such as embedding a question, does not count.
_TIMES, _TIMES_S = 1.5, 0.02
#: Shares of computed tokens below which it no longer matters how few they are.
_LEAST_COMPUTED: Final = 0.05
#: Changes within so many dwells of each other double the next one, up to a factor.
_CLOSE, _MOST_DWELLS = 4.0, 16.0

_SECONDS: Final = "seconds in"
RATE: Final = "arrivals per s"
COMPUTED: Final = "share of prompt tokens computed"


@dataclass(frozen=True)
class Bounds:
    """Between which a figure is what was planned for."""

    low: float
    high: float


@dataclass(frozen=True)
class Out:
    """A figure that has left the plan's range.

    Attributes:
        value: observed.
    """

    what: str
    value: float
    bounds: Bounds

    def __str__(self) -> str:
        return (
            f"{self.what} {self.value:.3g}, planned for {self.bounds.low:.3g} to"
            f" {self.bounds.high:.3g}"
        )


def ranges_of(plan: StoredPlan, hit: float = 0.0, again: float = 0.0) -> dict[str, Bounds]:
    """What a plan is for, by figure.

    Args:
        hit: share of prompt tokens whose KV it takes to be there.
        again: retrievals of an answer while it is written.
    """
    rates = [point["arrivals_per_s"] for point in plan.points]
    most = plan.simulated.get("arrivals_per_s", plan.predicted["qps"])
    found = {RATE: Bounds(min(rates, default=0.0), max(rates, default=most))}
    for what in ("prompt", "output"):
        if what in plan.requests:
            found[f"{what} tokens"] = _around(plan.requests[what], _LENGTHS)
    found[COMPUTED] = _around(max(_LEAST_COMPUTED, 1.0 - hit), _LENGTHS)
    if again:
        found["retrievals while writing"] = _around(again, _LENGTHS)
    for stage in STAGES:
        times = [_stage_s(point, stage) for point in plan.points]
        if times and max(times) > 0:
            low_s, high_s = min(times) / _TIMES - _TIMES_S, max(times) * _TIMES + _TIMES_S
            found[f"{_SECONDS} {stage}"] = Bounds(max(0.0, low_s), high_s)
    return found


def _stage_s(point: Mapping[str, float], stage: str) -> float:
    """A rewriter's two stages are one where they are measured."""
    return sum(s for key, s in point.items() if key.startswith(f"stage_s.{stage}"))


def _around(value: float, factor: float) -> Bounds:
    return Bounds(value / factor, value * factor)


def figures_of(observed: Observed) -> dict[str, float]:
    """What was observed, by the figures of ``ranges_of``."""
    found = {RATE: observed.arrivals_per_s}
    if observed.prompt:
        found["prompt tokens"] = observed.prompt
    if observed.output:
        found["output tokens"] = observed.output
    if observed.prefix_hit is not None:
        found[COMPUTED] = max(_LEAST_COMPUTED, 1.0 - observed.prefix_hit)
    if observed.again:
        found["retrievals while writing"] = observed.again
    return found | {f"{_SECONDS} {s}": t for s, t in observed.stages_s.items() if t > 0}


class Drift:
    """What is out of range now, and whether a decision about it is due.

    Args:
        ranges: of the plan that is deployed.
        now_s: when it was deployed.
    """

    def __init__(
        self, settings: ReplanSettings, ranges: Mapping[str, Bounds], now_s: float
    ) -> None:
        self._settings = settings
        self._ranges = dict(ranges)
        self._changed_s = now_s
        self._dwell_s = settings.dwell_s
        self._quiet_until_s = now_s + self._dwell_s
        self._beyond_since_s: dict[str, float] = {}
        self._out: set[str] = set()
        self._decided: dict[str, float] | None = None

    @property
    def ranges(self) -> Mapping[str, Bounds]:
        """Of the plan that is deployed."""
        return self._ranges

    def dwell_left_s(self, now_s: float) -> float:
        """Until a decision may be made."""
        return max(0.0, self._quiet_until_s - now_s)

    def look(self, figures: Mapping[str, float], now_s: float) -> tuple[Out, ...]:
        """Takes in what is observed now; the figures that are out of range."""
        for what, bounds in self._ranges.items():
            if what in figures:
                self._judge(what, figures[what], bounds, now_s)
        return tuple(
            Out(what, figures[what], self._ranges[what])
            for what in self._ranges
            if what in self._out and what in figures
        )

    def _judge(self, what: str, value: float, bounds: Bounds, now_s: float) -> None:
        if _within(value, bounds, self._settings.leave):
            self._out.discard(what)
        if _within(value, bounds, self._settings.enter):
            self._beyond_since_s.pop(what, None)
        elif now_s - self._beyond_since_s.setdefault(what, now_s) >= self._settings.hold_s:
            self._out.add(what)

    def due(self, out: tuple[Out, ...], figures: Mapping[str, float], now_s: float) -> bool:
        """Whether to plan anew."""
        if not out or now_s < self._quiet_until_s:
            return False
        return self._decided is None or any(self._moved(figures, each.what) for each in out)

    def _moved(self, figures: Mapping[str, float], what: str) -> bool:
        """Whether a figure is another than the last decision was made on."""
        assert self._decided is not None, "asked after a decision only"
        known = self._decided.get(what)
        if known is None:
            return True
        factor = self._settings.enter
        if what.startswith(_SECONDS):
            factor = max(factor, _TIMES)  # they vary more than what is asked for
        return not _within(figures[what], Bounds(known, known), factor)

    def kept(self, figures: Mapping[str, float], now_s: float) -> None:
        """It was decided that the plan stays."""
        self._decided = dict(figures)
        self._quiet_until_s = now_s + self._dwell_s

    def failed(self, now_s: float) -> None:
        """Nothing could be decided: it is tried again after a dwell."""
        self._quiet_until_s = now_s + self._dwell_s

    def changed(
        self, ranges: Mapping[str, Bounds], figures: Mapping[str, float], now_s: float
    ) -> None:
        """Another plan is deployed, made for these figures."""
        close = now_s - self._changed_s < _CLOSE * self._dwell_s
        longest_s = _MOST_DWELLS * self._settings.dwell_s
        self._dwell_s = min(longest_s, 2 * self._dwell_s) if close else self._settings.dwell_s
        self._changed_s, self._quiet_until_s = now_s, now_s + self._dwell_s
        self._ranges = dict(ranges)
        self._out.clear()
        self._beyond_since_s.clear()
        self._decided = dict(figures)


def _within(value: float, bounds: Bounds, factor: float) -> bool:
    return bounds.low / factor <= value <= bounds.high * factor
