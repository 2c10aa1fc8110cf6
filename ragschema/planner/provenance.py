"""Where a plan's figures come from, and how far measured latencies may move them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ragschema.planner.mix import Mix
from ragschema.planner.play import answer_s, candidate_of, play
from ragschema.planner.problem import Problem
from ragschema.planner.schedule import Schedule
from ragschema.planner.stages import StageTable


class Provenance(enum.StrEnum):
    """Of a stage's latency."""

    MEASURED = "measured"
    MODELLED = "modelled"


@dataclass(frozen=True)
class Interval:
    """Between these a figure lies if every measured latency does: nine of ten each."""

    low: float
    high: float


def provenance_of(problem: Problem, schedule: Schedule) -> Mapping[str, Provenance]:
    """By stage."""
    found = {}
    for table, choice in zip(problem.stages_in(schedule.placement), schedule.choices, strict=True):
        known = Provenance.MODELLED
        if table.spread is not None:
            row, column = table.row(choice.count, choice.kind), table.batches.index(choice.batch)
            if not np.isnan(table.spread[row, column]):
                known = Provenance.MEASURED
        found[table.name] = known
    return found


def intervals_of(problem: Problem, mix: Mix, schedule: Schedule) -> Mapping[str, Interval]:
    """Of TTFT, TPOT and QPS, all measured stages being slow or quick at once; modelled ones
    stay as they are, since nobody knows how far a model is off.

    Empty: no stage was measured.
    """
    if Provenance.MEASURED not in provenance_of(problem, schedule).values():
        return {}
    ends = [_figures(_scaled(problem, slow), mix, schedule) for slow in (False, True)]
    return {
        name: Interval(min(end[name] for end in ends), max(end[name] for end in ends))
        for name in ends[0]
    }


def _figures(problem: Problem, mix: Mix, schedule: Schedule) -> dict[str, float]:
    played = play(problem, candidate_of(problem, schedule))
    assert played is not None, "the schedule is possible, and its limits are lifted"
    return {
        "ttft_s": played.ttft_s,
        "tpot_s": answer_s(problem, played) / mix.output,
        "qps": played.qps,
        "qps_per_chip": played.qps_per_chip,
    }


def _scaled(problem: Problem, slow: bool) -> Problem:
    stages = tuple(_moved(stage, slow) for stage in problem.stages)
    together = problem.together
    if together is not None:
        together = _moved(together[0], slow), _moved(together[1], slow)
    return replace(problem, stages=stages, together=together, wanted_qps=None, max_answer_s=np.inf)


def _moved(stage: StageTable, slow: bool) -> StageTable:
    if stage.spread is None:
        return stage
    factor = 1.0 + np.nan_to_num(stage.spread)
    return replace(stage, latency_s=stage.latency_s * (factor if slow else 1.0 / factor))
