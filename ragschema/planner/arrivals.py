"""When requests arrive: Poisson, in bursts, or as a trace says."""

from __future__ import annotations

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.problem import F64


def poisson(rate_per_s: float, count: int, seed: int) -> F64:
    """Arrival times of a Poisson process: float64 [count], ascending."""
    _check(rate_per_s, "rate_per_s")
    gaps = np.random.default_rng(seed).exponential(1.0 / rate_per_s, count)
    times: F64 = np.cumsum(gaps)
    return times


def bursts(size: int, period_s: float, count: int) -> F64:
    """``size`` requests at once, every ``period_s``: float64 [count]."""
    _check(period_s, "period_s")
    if size < 1:
        raise InvalidInput(f"a burst of {size} is none", field="size", hint="give at least 1")
    times: F64 = (np.arange(count) // size) * np.float64(period_s)
    return times


def from_trace(times_s: F64, speed: float = 1.0) -> F64:
    """A recorded trace, played ``speed`` times as fast and from 0: float64, ascending.

    Raises:
        InvalidInput: the trace is empty, not finite or goes back in time.
    """
    _check(speed, "speed")
    if not len(times_s) or not np.isfinite(times_s).all() or (np.diff(times_s) < 0).any():
        raise InvalidInput(
            "arrival times must be finite and ascending, at least one",
            field="trace",
            hint="sort the trace and drop rows without a time",
        )
    played: F64 = (times_s - times_s[0]) / speed
    return played


def _check(value: float, field: str) -> None:
    if not 0 < value < np.inf:
        raise InvalidInput(f"{value} is not above 0", field=field, hint="give a positive number")
