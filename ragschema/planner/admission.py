"""How many requests a plan lets in: who could not be answered in time is better refused at once.

Without a limit, a rig to which more requests come than it can answer is late for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from ragschema.planner.plan import Plan
from ragschema.planner.played import Limits, Played
from ragschema.planner.points import played_at
from ragschema.planner.slo import asks_of_load
from ragschema.workload import ObjectivesConfig

#: Share of the plan's rate that comes while limits are compared: more than can be answered.
_CROWD: Final = 1.5
#: A limit this much as good as the best one is good enough.
_NEARLY: Final = 0.97
#: At the load for which the objectives are promised, no more are to be refused.
_MOST_REFUSED: Final = 0.005
#: Limits next to each other differ by this factor.
_STEP: Final = 1.12
_LEAST_REQUESTS: Final = 2_000
_MOST_REQUESTS: Final = 20_000


def most_under_way(plan: Plan) -> int | None:
    """Requests under way, beyond which others are refused.

    The fewest with which nearly as many are answered within the objectives as with any limit, while
    more come than can be answered: just beyond the best limit, all are late.

    Returns:
        None: the schema has no objective that waiting could break.
    """
    wanted = plan.schema.objectives
    if not asks_of_load(wanted):
        return None
    limits = limits_of(wanted)
    candidates = _candidates(plan)

    @cache
    def in_time_per_s(at: int) -> float:
        return _played(plan, _CROWD, candidates[at]).goodput_per_s(limits)

    best = _highest(in_time_per_s, len(candidates))
    enough = _NEARLY * in_time_per_s(best)
    at = _first(lambda at: in_time_per_s(at) >= enough, best)
    while at < len(candidates) - 1 and _refused(plan, candidates[at]) > _MOST_REFUSED:
        at += 1
    return candidates[at]


def limits_of(wanted: ObjectivesConfig) -> Limits:
    """What each request is to keep: of the objectives of a kind the widest."""

    def widest(*some: float | None) -> float | None:
        return max((s for s in some if s is not None), default=None)

    return Limits(
        widest(wanted.ttft_p50_s, wanted.ttft_p99_s),
        widest(wanted.tpot_p50_s, wanted.tpot_p99_s),
        widest(wanted.e2e_p50_s, wanted.e2e_p99_s),
    )


def _candidates(plan: Plan) -> Sequence[int]:
    """Around what is under way by Little's law."""
    qps, met = plan.schedule.qps, plan.simulated
    found = [max(1, math.floor(0.25 * qps * met["e2e_s_mean"]))]
    while found[-1] < 2 * qps * met["e2e_s_p99"]:
        found.append(max(found[-1] + 1, math.floor(found[-1] * _STEP)))
    return found


def _played(plan: Plan, load: float, most: int) -> Played:
    count = min(_MOST_REQUESTS, max(_LEAST_REQUESTS, 5 * most))
    _, played = played_at(plan, load, most, count)
    return played


def _refused(plan: Plan, most: int) -> float:
    return _played(plan, plan.schema.objectives.load, most).refused_share


def _highest(value: Callable[[int], float], count: int) -> int:
    """Where a sequence that rises and then falls is highest."""
    low, high = 0, count - 1
    while high - low > 2:
        left, right = low + (high - low) // 3, high - (high - low) // 3
        if value(left) < value(right):
            low = left + 1
        else:
            high = right
    return max(range(low, high + 1), key=value)


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The first place up to ``last``, where it holds, from which on it does."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
