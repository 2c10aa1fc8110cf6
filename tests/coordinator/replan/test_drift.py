"""When a load counts as another, and that decisions neither follow each other closely nor waver."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from coordinator.replan.drift import COMPUTED, RATE, Bounds, Drift, figures_of, ranges_of
from coordinator.replan.observe import Observed
from coordinator.replan.settings import ReplanSettings
from ragschema.planner.plan_file import StoredPlan

SETTINGS = ReplanSettings(
    mode="auto", plan="p", schema="s", profile=None, folder="f", window_s=8.0, dwell_s=60.0
)
HOLD_S = SETTINGS.hold_s
DAY_S = 86_400.0


def stored(qps: float) -> StoredPlan:
    points = tuple(
        {"arrivals_per_s": load * qps, "stage_s.decode": 1.0 + load, "stage_s.retrieval": 1e-4}
        for load in (0.3, 0.9)
    )
    wanted = {"question": 10.0, "prompt": 120.0, "output": 60.0}
    return StoredPlan("desk", {"qps": qps}, (), {}, {}, None, wanted, points)


def drift(qps: float = 10.0) -> Drift:
    return Drift(SETTINGS, ranges_of(stored(qps)), 0.0)


def played(watch: Drift, rates: Iterator[float], until_s: float) -> list[float]:
    """When plans changed, with one for the observed rate whenever a decision was due."""
    changes = []
    for now_s in np.arange(1.0, until_s).tolist():
        figures = {RATE: next(rates)}
        if watch.due(watch.look(figures, now_s), figures, now_s):
            changes.append(now_s)
            watch.changed(ranges_of(stored(figures[RATE] / 0.7)), figures, now_s)
    return changes


def test_a_plan_speaks_of_its_loads_lengths_hits_and_times() -> None:
    ranges = ranges_of(stored(10.0), hit=0.6, again=3.0)
    assert ranges[RATE] == Bounds(3.0, 9.0)
    assert ranges["prompt tokens"] == Bounds(100.0, 144.0)
    assert ranges["retrievals while writing"] == Bounds(2.5, 3.0 * 1.2)
    assert ranges[COMPUTED].low < 0.4 < ranges[COMPUTED].high
    assert ranges["seconds in decode"].high == pytest.approx(1.9 * 1.5 + 0.02)
    # What a question's embedding takes is not the plan's, and no reason to plan anew.
    assert ranges["seconds in retrieval"].low == 0.0
    assert ranges["seconds in retrieval"].high > 0.01
    assert "seconds in rerank" not in ranges


def test_an_old_plan_without_loads_is_for_up_to_its_simulated_rate() -> None:
    plan = StoredPlan("desk", {"qps": 10.0}, (), {}, {"arrivals_per_s": 7.0}, None)
    assert ranges_of(plan)[RATE] == Bounds(0.0, 7.0)


def test_what_was_not_seen_is_no_figure() -> None:
    assert figures_of(Observed(10.0, 2.0, 0)) == {RATE: 2.0}
    seen = Observed(10.0, 2.0, 5, 100.0, 50.0, 0.0, 1.0, {"decode": 1.0, "rerank": 0.0})
    figures = figures_of(seen)
    assert figures[COMPUTED] == 0.05
    assert set(figures) == {
        RATE, COMPUTED, "prompt tokens", "output tokens", "seconds in decode",
    }  # fmt: skip


def test_it_counts_once_it_stays_beyond_and_until_it_is_well_back() -> None:
    watch = drift()
    assert watch.look({RATE: 11.0}, 1.0) == ()
    assert watch.look({RATE: 10.0}, 2.0) == (), "within a factor of 1.15: it starts anew"
    assert watch.look({RATE: 11.0}, 3.0) == ()
    assert watch.look({RATE: 11.0}, 3.0 + HOLD_S - 0.1) == ()
    (out,) = watch.look({RATE: 11.0}, 3.0 + HOLD_S)
    assert (out.what, out.value, out.bounds) == (RATE, 11.0, Bounds(3.0, 9.0))
    assert "arrivals per s 11, planned for 3 to 9" in str(out)
    assert watch.look({RATE: 9.9}, 10.0), "no longer beyond, and not yet back"
    assert not watch.look({RATE: 9.4}, 11.0)
    assert not watch.look({RATE: 9.9}, 12.0)


def test_nothing_is_decided_before_the_dwell_is_over() -> None:
    watch, figures = drift(), {RATE: 20.0}
    for now_s in (1.0, 30.0, 59.0):
        assert not watch.due(watch.look(figures, now_s), figures, now_s)
    assert watch.dwell_left_s(59.0) == 1.0
    assert watch.due(watch.look(figures, 60.0), figures, 60.0)


def test_what_was_decided_is_decided_again_only_when_it_changes() -> None:
    watch, figures = drift(), {RATE: 20.0}
    watch.look(figures, 1.0)
    watch.look(figures, 60.0)
    watch.kept(figures, 60.0)
    for rate, due in ((20.0, False), (22.0, False), (24.0, True), (17.0, True)):
        now = {RATE: rate}
        assert watch.due(watch.look(now, 200.0), now, 200.0) is due, rate
    late = {"seconds in decode": 9.0, RATE: 20.0}
    for now_s in (200.0, 210.0):
        out = watch.look(late, now_s)
    watch.kept(late, 210.0)
    for seconds, due in ((12.0, False), (14.0, True)):
        now = {"seconds in decode": seconds, RATE: 20.0}
        assert watch.due(watch.look(now, 280.0), now, 280.0) is due, seconds
    assert {each.what for each in out} == {RATE, "seconds in decode"}


def test_what_failed_is_tried_again_after_a_dwell() -> None:
    watch, figures = drift(), {RATE: 20.0}
    watch.look(figures, 190.0)
    watch.look(figures, 200.0)
    watch.failed(200.0)
    assert not watch.due(watch.look({RATE: 30.0}, 201.0), {RATE: 30.0}, 201.0)
    assert watch.due(watch.look({RATE: 30.0}, 260.0), {RATE: 30.0}, 260.0)


@pytest.mark.parametrize("edge", [3.0, 9.0])
def test_a_load_around_an_edge_changes_nothing(edge: float) -> None:
    for period in (1, 7, 120, 1000):
        square = itertools.cycle([edge * 1.13] * period + [edge / 1.13] * period)
        assert played(drift(), square, DAY_S / 8) == [], period


def test_a_load_that_alternates_quickly_changes_nothing() -> None:
    """Each level alone would count, and none stays for long enough."""
    square = itertools.cycle([20.0, 8.0])
    assert played(drift(), square, DAY_S / 8) == []


def test_a_step_brings_one_change() -> None:
    step = itertools.chain(itertools.repeat(6.0, 1000), itertools.repeat(20.0))
    (changed_s,) = played(drift(), step, DAY_S / 8)
    assert 1000 <= changed_s <= 1000 + HOLD_S + 2


@pytest.mark.parametrize("period", [20, 70, 200])
def test_a_load_that_keeps_moving_changes_plans_ever_more_rarely(period: int) -> None:
    square = itertools.cycle([4.0] * period + [40.0] * period)
    changes = played(drift(), square, DAY_S)
    gaps = np.diff([0.0, *changes])
    longest_s = 16 * SETTINGS.dwell_s
    assert (gaps >= SETTINGS.dwell_s).all()
    assert len(changes) <= 5 + DAY_S / longest_s


def test_a_load_that_stays_is_followed_once() -> None:
    """Each level lasts for five dwells: one change for each, and no more."""
    square = itertools.cycle([4.0] * 300 + [40.0] * 300)
    changes = played(drift(), square, DAY_S / 8)
    assert len(changes) <= DAY_S / 8 / 300
    assert (np.diff(changes) >= 299).all()


def walk(seed: int) -> Callable[[], Iterator[float]]:
    """A load that moves by up to a half per second, now and then by ten times."""
    rng = np.random.default_rng(seed)

    def rates() -> Iterator[float]:
        rate = 6.0
        while True:
            jump = rng.choice([0.1, 1.0, 10.0], p=[0.01, 0.98, 0.01])
            rate = float(np.clip(rate * jump * rng.uniform(0.67, 1.5), 1e-3, 1e6))
            yield rate

    return rates


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_load_a_plan_stays_for_its_dwell(seed: int) -> None:
    print(f"seed {seed}")
    changes = played(drift(), walk(seed)(), DAY_S / 4)
    assert changes, "the walk leaves the range"
    assert (np.diff([0.0, *changes]) >= SETTINGS.dwell_s).all()
