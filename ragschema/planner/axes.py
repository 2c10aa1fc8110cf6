"""What plans are compared by: the axes of a frontier, and what one objective prefers."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.assemble import Rate
from ragschema.planner.play import answer_s
from ragschema.planner.problem import Problem
from ragschema.planner.schedule import TWINS, Schedule


class Axis(enum.StrEnum):
    """What a frontier may spread over; two or three of them."""

    TTFT = "ttft"
    TPOT = "tpot"
    QPS_PER_CHIP = "qps_per_chip"
    COST = "cost"
    ENERGY = "energy"


class Objective(enum.StrEnum):
    """What is best; ties go to the lower TTFT, then to fewer chips."""

    MAX_QPS_PER_CHIP = "max-qps-per-chip"
    MIN_TTFT = "min-ttft"
    MIN_CHIPS = "min-chips"
    MIN_COST = "min-cost"
    MIN_ENERGY = "min-energy"

    @property
    def rate(self) -> Rate | None:
        """What it makes the most of; None: TTFT decides."""
        return {
            Objective.MAX_QPS_PER_CHIP: Rate.PER_CHIP,
            Objective.MIN_TTFT: None,
            Objective.MIN_CHIPS: Rate.PER_CHIP,
            Objective.MIN_COST: Rate.PER_COST,
            Objective.MIN_ENERGY: Rate.PER_WATT,
        }[self]


def default_axes(objective: Objective) -> tuple[Axis, ...]:
    """TTFT and the rate that an objective speaks of."""
    return (Axis.TTFT, Axis(objective.rate or Rate.PER_CHIP))


def check_axes(axes: Sequence[Axis]) -> None:
    """Raises InvalidInput unless there are two or three different ones."""
    if len(set(axes)) != len(axes) or not 2 <= len(axes) <= 3:
        raise InvalidInput(
            f"{', '.join(axes) or 'no axes'}: a frontier has two or three different axes",
            field="axes",
            hint=f"choose from {', '.join(Axis)}",
        )


def rates_of(objective: Objective, axes: Sequence[Axis]) -> tuple[Rate, ...]:
    """The rates a search must keep apart, the objective's first."""
    wanted = [objective.rate] if objective.rate is not None else []
    wanted += [Rate(axis) for axis in axes if axis not in (Axis.TTFT, Axis.TPOT)]
    return tuple(dict.fromkeys(wanted)) or (Rate.PER_CHIP,)


def by_preference(
    schedules: Sequence[Schedule], objective: Objective, rates: Sequence[Rate]
) -> list[Schedule]:
    """A frontier's schedules, best first."""
    if objective.rate is None:
        return sorted(schedules, key=lambda s: (s.ttft_s, -s.value, s.chips))
    # With a wanted rate, the best QPS per chip is the fewest chips that reach it.
    which = rates.index(objective.rate)
    return sorted(schedules, key=lambda s: (-s.values[which], s.ttft_s, s.chips))


def spread_over(
    problem: Problem, schedules: Sequence[Schedule], axes: Sequence[Axis], rates: Sequence[Rate]
) -> list[Schedule]:
    """The schedules that no other one beats in the chosen axes, by the first of them.

    Smaller is better throughout: TTFT, TPOT, chips, cost and energy per request.
    """
    if not schedules:
        return []
    rows = np.array([[_at(problem, s, axis, rates) for axis in axes] for s in schedules])
    order = np.lexsort(rows.T[::-1])
    kept: list[int] = []
    for i in order.tolist():
        slack = TWINS * np.abs(rows[i])
        if not any((rows[k] <= rows[i] + slack).all() for k in kept):
            kept.append(i)
    return [schedules[i] for i in kept]


def _at(problem: Problem, schedule: Schedule, axis: Axis, rates: Sequence[Rate]) -> float:
    if axis is Axis.TTFT:
        return schedule.ttft_s
    if axis is Axis.TPOT:
        return answer_s(problem, schedule)
    return -schedule.values[rates.index(Rate(axis))]
