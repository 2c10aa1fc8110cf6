"""When requests arrive: Poisson, in clumps, in bursts, or as a trace says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.stages import F64
from ragschema.tracefile import trace_column
from ragschema.traffic import ArrivalsConfig


def arrivals_for(config: ArrivalsConfig, rate_per_s: float, count: int, seed: int) -> F64:
    """Arrival times of a schema's process at a mean rate: float64 [count], ascending.

    A trace that is shorter than ``count`` starts over when it ends.

    Raises:
        InvalidInput, NotFound: of the trace.
    """
    _check(rate_per_s, "rate_per_s")
    if config.process == "bursts":
        assert config.size is not None, "checked with the schema"
        return bursts(config.size, config.size / rate_per_s, count)
    if config.process == "gamma":
        assert config.cv is not None, "checked with the schema"
        return clumps(rate_per_s, config.cv, count, seed)
    if config.process == "trace":
        assert config.trace is not None, "checked with the schema"
        times_s = np.sort(trace_column(Path(config.trace), config.column, "arrivals.column"))
        return _repeated(times_s, rate_per_s, count)
    return poisson(rate_per_s, count, seed)


def clumps(rate_per_s: float, cv: float, count: int, seed: int) -> F64:
    """Gamma-distributed gaps with a coefficient of variation; 1 is Poisson: float64 [count]."""
    _check(rate_per_s, "rate_per_s")
    _check(cv, "cv")
    shape = 1.0 / cv**2
    gaps = np.random.default_rng(seed).gamma(shape, 1.0 / (rate_per_s * shape), count)
    times: F64 = np.cumsum(gaps)
    return times


def _repeated(times_s: F64, rate_per_s: float, count: int) -> F64:
    gaps = np.diff(times_s)
    if not len(gaps) or not gaps.sum() > 0:
        raise InvalidInput(
            "all times of the trace are the same",
            field="arrivals.column",
            hint="name the column with seconds",
        )
    scaled = np.resize(gaps, count) / (gaps.mean() * rate_per_s)
    times: F64 = np.cumsum(scaled)
    return times


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
