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
from ragschema.planner.problem import Problem
from ragschema.planner.stages import F64, I64
from ragschema.planner.weighing import Weighing


@dataclass(frozen=True, eq=False)
class Bounds:
    """Limits of one placement.

    Attributes:
        latency_s: float64 [groups + 1][max_chips + 1], least time from there by chips spent;
            inf: too few are left.
        value: per weighing float64 [groups + 1][max_chips + 1], best QPS per weight of a
            partial schedule that has spent so many chips on the groups before.
        total_lo: int64 [groups + 1][max_chips + 1], fewest chips in all from there, at most
            ``max_chips``.
        least: [groups + 1], fewest chips of the groups from there, decode included.
        weight_lo: per weighing float64 [groups + 1][max_chips + 1], lowest weight in all
            from there; inf: more chips are needed than there are.
    """

    latency_s: tuple[F64, ...]
    value: tuple[tuple[F64, ...], ...]
    total_lo: tuple[I64, ...]
    least: tuple[int, ...]
    weight_lo: tuple[tuple[F64, ...], ...]


def decode_rates(problem: Problem, burst: int, iterative_batch: int | None = None) -> F64:
    """Best decode rate with a batch of at least the burst, by kind and number of chips.

    With an iterative batch that takes no time of its own: no schedule does better.

    float64 [kinds, max_chips + 1]; 0: not possible.
    """
    decode = problem.decode
    batches = np.array(decode.batches)
    rates = np.zeros((len(problem.kinds), problem.max_chips + 1))
    fits = batches >= burst
    if fits.any():
        some = batches[fits]
        free = np.zeros(len(some))
        answer_s = problem.answer_s(decode.latency_s[:, fits], some, free, iterative_batch)
        answer_s = np.where(answer_s <= problem.max_answer_s, answer_s, np.inf)
        per_count = (some / answer_s).max(axis=1)
        for (kind, count), rate in zip(decode.rows, per_count.tolist(), strict=True):
            if count <= min(problem.max_chips, problem.kinds[kind].limit):
                rates[kind, count] = rate
    return problem.worth(rates)


def no_decode_chips(problem: Problem) -> F64:
    """The same where decode is on the chips of a group, whose rate has it counted already.

    float64 [1, max_chips + 1], large numbers: infinite ones could not be divided.
    """
    return problem.worth(np.full((1, problem.max_chips + 1), np.finfo(np.float64).max))


def bounds_of(
    problem: Problem,
    groups: Sequence[GroupOptions],
    decode: F64,
    weighings: Sequence[Weighing],
) -> Bounds:
    """Bounds for the groups of one placement, in order.

    Args:
        decode: as ``decode_rates`` gives it; limits of kinds are left out of the bounds.
    """
    size = problem.max_chips + 1
    rate = decode.max(axis=0)
    least = _least(rate)
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
    totals = [np.maximum(problem.lowest_total, spent + low) for low in reversed(leasts)]
    return Bounds(
        latency_s=tuple(t[::-1] for t in reversed(times)),
        value=tuple(
            tuple(_value(problem, weighing, r, servers) for r in reversed(rates))
            for weighing in weighings
        ),
        total_lo=tuple(np.minimum(t, problem.max_chips) for t in totals),
        least=tuple(reversed(leasts)),
        weight_lo=tuple(
            tuple(np.append(weighing.least, np.inf)[np.minimum(t, size)] for t in totals)
            for weighing in weighings
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
        np.maximum(rates[low : high + 1], rate, out=rates[low : high + 1])
    return rates


def _value(problem: Problem, weighing: Weighing, rest: F64, servers: F64) -> F64:
    """Best QPS per weight by chips spent c.

    The largest ``min(rest[T - c], servers[T]) / weight[T]`` of all totals T.
    """
    size = len(rest)
    padded = np.concatenate([np.zeros(size - 1), rest])
    # Row T holds rest[T - c] for c = 0, 1, ...; 0 where more was spent than there is.
    left = np.lib.stride_tricks.sliding_window_view(padded, size)[:, ::-1]
    totals = np.arange(problem.lowest_total, size)
    weights = weighing.least[totals, None]
    reached = np.minimum(left[totals], servers[totals, None]) / weights
    best: F64 = reached.max(axis=0, initial=0.0)
    return best
