"""Costs are found again, stay above 0, and disturbances do not move them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.profile_fit import evaluate, fit_terms

SEED = 20
POINTS = [
    {"batch": float(b), "tokens": float(n)} for b, n in itertools.product((1, 4, 16), (8, 64, 256))
]
TERMS = ("1", "batch", "batch*tokens", "batch*tokens*tokens")
COSTS = {"1": 2e-3, "batch": 1e-4, "batch*tokens": 3e-5}


def seconds(point: dict[str, float]) -> float:
    return sum(cost * evaluate(term, point) for term, cost in COSTS.items())


def test_known_costs_are_found() -> None:
    fit = fit_terms(POINTS, [seconds(p) for p in POINTS], TERMS)
    found = {term.name: term.seconds for term in fit.terms}
    for term, cost in COSTS.items():
        assert found[term] == pytest.approx(cost, rel=1e-6)
    assert found["batch*tokens*tokens"] == pytest.approx(0, abs=1e-12)
    assert fit.max_abs_error_pct < 1e-4
    assert fit.width == 0.02, "never narrower: other days differ"


def test_noise_is_in_the_width() -> None:
    rng = np.random.default_rng(SEED)
    noisy = [seconds(p) * float(rng.uniform(0.9, 1.1)) for p in POINTS]
    fit = fit_terms(POINTS, noisy, TERMS)
    assert 0.03 < fit.width < 0.6, f"seed {SEED}"
    assert fit_terms(POINTS, noisy, TERMS, noise=0.9).width == 0.9


def test_a_disturbed_point_moves_the_costs_little() -> None:
    measured = [seconds(p) for p in POINTS]
    measured[4] *= 10
    fit = fit_terms(POINTS, measured, TERMS)
    assert fit.residuals[4] > 5
    others = [r for at, r in enumerate(fit.residuals) if at != 4]
    assert max(abs(r) for r in others) < 0.15


def test_no_cost_is_below_zero() -> None:
    """A time that falls with the batch would want one."""
    points = [{"batch": float(b)} for b in (1, 2, 4, 8)]
    fit = fit_terms(points, [8.0, 4.0, 2.0, 1.0], ("1", "batch"))
    assert all(term.seconds >= 0 for term in fit.terms)
    assert fit.seconds({"batch": 100.0}) > 0


def test_steps_between_points_are_corrected() -> None:
    """Twice as slow beyond a cache: no sum of terms has that, points around have."""
    points = [{"codes": float(2**n)} for n in range(4, 17)]
    measured = [p["codes"] * (1e-6 if p["codes"] <= 1024 else 2e-6) for p in points]
    fit = fit_terms(points, measured, ("1", "codes"))
    assert fit.corrected
    for at, want_s in (({"codes": 48.0}, 48e-6), ({"codes": 20_000.0}, 0.04)):
        got = fit.predict(at, points)
        assert got.seconds == pytest.approx(want_s, rel=0.12)
        assert got.low < want_s < got.high


def test_outside_the_interval_widens_with_the_distance() -> None:
    fit = fit_terms(POINTS, [seconds(p) for p in POINTS], TERMS)
    at = {"batch": 64.0, "tokens": 64.0}
    near, far = fit.predict(at, POINTS, 4.0), fit.predict(at, POINTS, 16.0)
    inside = fit.predict(at, POINTS)
    assert near.extrapolated
    assert not inside.extrapolated
    assert inside.high < near.high < far.high
    assert far.low < near.low < inside.low


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_still_give_a_model(count: int) -> None:
    points = POINTS[:count]
    fit = fit_terms(points, [seconds(p) for p in points], TERMS)
    assert fit.seconds(points[0]) == pytest.approx(seconds(points[0]), rel=1e-6)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(InvalidInput, match="nothing was measured"):
        fit_terms([], [], TERMS)
    with pytest.raises(InvalidInput, match="'nprobe'"):
        fit_terms(POINTS, [1.0] * len(POINTS), ("batch*nprobe",))


def test_few_points_do_not_get_terms_that_only_meet_them() -> None:
    """Noise at four points: a term for each would meet them, and miss what lies between."""
    points = [{"batch": float(b), "tokens": 8.0} for b in (1, 2, 4, 16)]
    noise = (1.05, 0.93, 1.08, 0.97)
    measured = [1e-3 * p["batch"] * n for p, n in zip(points, noise, strict=True)]
    fit = fit_terms(points, measured, ("1", "batch", "batch*batch", "batch*batch*batch"))
    assert len([term for term in fit.terms if term.seconds]) <= 2
    assert fit.seconds({"batch": 8.0, "tokens": 8.0}) == pytest.approx(8e-3, rel=0.15)
    assert [term.name for term in fit.terms][-1] == "batch*batch*batch", "kept for the next fit"
