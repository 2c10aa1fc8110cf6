"""What the rest of a pipeline can reach at best: cheap limits that prune partial schedules.

For one placement and burst. With r chips left, ``rate[g][r]`` is the best smallest rate of
groups g and after, decode included, over every split of the chips; latencies are left out
of it, so no schedule does better. Likewise the least time of one request through groups g
and after, over every split of the chips that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.planner.options import GroupOptions
from ragschema.planner.problem import F64, Problem


@dataclass(frozen=True, eq=False)
class Bounds:
    """Limits of one placement.

    Attributes:
        latency_s: float64 [groups + 1][max_chips + 1], least time from there by chips spent;
            inf: too few are left.
        per_chip: float64 [groups + 1][max_chips + 1], best QPS per chip of a partial
            schedule that has spent so many chips on the groups before.
        total_lo: int [groups + 1][max_chips + 1], fewest chips in all from there.
    """

    latency_s: tuple[F64, ...]
    per_chip: tuple[F64, ...]
    total_lo: tuple[F64, ...]


def decode_rates(problem: Problem, burst: int) -> F64:
    """Best decode rate by chips, batch at least the burst: float64 [max_chips + 1]; 0: none."""
    decode = problem.decode
    batches = np.array(decode.batches)
    rates = np.zeros(problem.max_chips + 1)
    fits = batches >= burst
    if fits.any():
        per_count = (batches[fits] / decode.latency_s[:, fits]).max(axis=1)
        for count, rate in zip(decode.counts, per_count.tolist(), strict=True):
            if count <= problem.max_chips:
                rates[count] = rate
    return problem.worth(rates)


def bounds_of(problem: Problem, groups: Sequence[GroupOptions], decode: F64) -> Bounds:
    """Bounds for the groups of one placement, in order."""
    size = problem.max_chips + 1
    rate, least = decode.copy(), _least(decode)
    time = np.where(np.arange(size) >= least, 0.0, np.inf)
    rates, leasts, times = [rate], [least], [time]
    for options in reversed(groups):
        if options.chips.any():
            own = np.zeros(size)
            inside = options.chips < size
            np.maximum.at(own, options.chips[inside], options.rate[inside])
            rate = _max_min(own, rate)
            least += int(options.chips.min(initial=size))
            quickest = np.full(size, np.inf)
            np.minimum.at(quickest, options.chips[inside], options.service_s[inside])
            time = _min_plus(quickest, time)
        else:
            time = time + options.service_s.min(initial=np.inf)
        rates.append(rate)
        leasts.append(least)
        times.append(time)
    servers = _server_rates(problem, groups)
    spent = np.arange(size)
    return Bounds(
        latency_s=tuple(t[::-1] for t in reversed(times)),
        per_chip=tuple(_per_chip(problem, r, servers) for r in reversed(rates)),
        total_lo=tuple(
            np.maximum(problem.lowest_total, spent + low).astype(float) for low in reversed(leasts)
        ),
    )


def _least(rates: F64) -> int:
    found = np.flatnonzero(rates)
    return int(found[0]) if len(found) else len(rates)


def _max_min(own: F64, rest: F64) -> F64:
    """``out[r] = max over a + b = r of min(own[a], rest[b])``."""
    best = np.zeros_like(rest)
    for a in np.flatnonzero(own).tolist():
        np.maximum(best[a:], np.minimum(own[a], rest[: len(rest) - a]), out=best[a:])
    return best


def _min_plus(own: F64, rest: F64) -> F64:
    """``out[r] = min over a + b <= r of own[a] + rest[b]``."""
    best = np.full_like(rest, np.inf)
    for a in np.flatnonzero(np.isfinite(own)).tolist():
        np.minimum(best[a:], own[a] + rest[: len(rest) - a], out=best[a:])
    return np.minimum.accumulate(best)


def _server_rates(problem: Problem, groups: Sequence[GroupOptions]) -> F64:
    """Best rate of the servers that come with so many chips in all; inf without servers."""
    size = problem.max_chips + 1
    if problem.server_stage is None:
        return np.full(size, np.inf)
    options = next(o for o in groups if problem.stages.index(problem.server_stage) in o.group)
    best = np.zeros(len(problem.server_totals))
    np.maximum.at(best, options.servers, options.rate)
    rates = np.zeros(size)
    for rate, (low, high) in zip(best.tolist(), problem.server_totals.tolist(), strict=True):
        rates[low : high + 1] = rate
    return rates


def _per_chip(problem: Problem, rest: F64, servers: F64) -> F64:
    """Best QPS per chip by chips spent: max over totals T of min(rest[T - c], servers[T]) / T."""
    size = len(rest)
    padded = np.concatenate([np.zeros(size - 1), rest])
    # Row T holds rest[T - c] for c = 0, 1, ...; 0 where more was spent than there is.
    left = np.lib.stride_tricks.sliding_window_view(padded, size)[:, ::-1]
    totals = np.arange(problem.lowest_total, size)
    reached = np.minimum(left[totals], servers[totals, None]) / totals[:, None]
    best: F64 = reached.max(axis=0, initial=0.0)
    return best
