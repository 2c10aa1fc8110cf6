"""The frontier with TPOT as an axis beside TTFT and the rates.

TPOT takes few values: one per row and batch of the decode table. For each of them, lowest
first, the search runs with slower decode batches left out, starting from what lower values
gave; every schedule that is undominated with TPOT counted is on one of these frontiers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import astuple, replace

import numpy as np

from ragschema.planner.problem import Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import Gap, search_within


def search_levels(
    problem: Problem,
    progress: Callable[[float], None] | None = None,
    limit_s: float = math.inf,
) -> tuple[tuple[Schedule, ...], Gap]:
    """Schedules of which none is as good in TTFT, in every rate and in TPOT; not filtered.

    Some that are beaten in all of them may be among those returned.
    """
    levels = decode_levels(problem)
    deadline_s = time.monotonic() + limit_s
    found: dict[Schedule, None] = {}
    gap = Gap()
    known: tuple[Schedule, ...] = ()
    for done, level in enumerate(levels):
        left_s = deadline_s - time.monotonic()
        frontier, level_gap = search_within(within_level(problem, level), left_s, known=known)
        known = frontier.points
        # A gap of the strictest TPOT matters as much as one of the loosest.
        gap = Gap(*(max(pair) for pair in zip(astuple(gap), astuple(level_gap), strict=True)))
        found |= dict.fromkeys(known)
        if progress is not None:
            progress((done + 1) / len(levels))
    return tuple(found), gap


def decode_levels(problem: Problem) -> list[float]:
    """Seconds that decode may take for an answer, each once, ascending."""
    latency_s = problem.decode.latency_s
    levels: list[float] = np.unique(latency_s[np.isfinite(latency_s)]).tolist()
    return levels


def within_level(problem: Problem, level_s: float) -> Problem:
    """The problem without decode batches that take longer."""
    decode = problem.decode
    latency = np.where(decode.latency_s <= level_s, decode.latency_s, np.inf)
    stages = (*problem.before_decode, replace(decode, latency_s=latency))
    return replace(problem, stages=stages)
