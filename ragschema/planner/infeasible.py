"""Why there is no plan: what binds, and the smallest change that makes one possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragschema.planner.assemble import Rate
from ragschema.planner.mix import Mix
from ragschema.planner.play import answer_s
from ragschema.planner.problem import Decoding, Problem, Weights
from ragschema.planner.schedule import Schedule
from ragschema.planner.search import search
from ragschema.workload import RagSchema


@dataclass(frozen=True)
class Infeasible:
    """Why there is no plan.

    Attributes:
        binding: the objective or resource that nothing meets.
        reached: the best value that can be had for it, others being met; None: the pool
            cannot run the workload at all.
        change: the smallest change that makes a plan possible.
    """

    binding: str
    reached: float | None
    change: str


def tpot_of(problem: Problem, mix: Mix, schedule: Schedule) -> float:
    """Seconds per output token at the schedule's decode batch."""
    return answer_s(problem, schedule) / mix.output


def tpot_out_of_reach(problem: Problem, mix: Mix) -> Infeasible:
    lowest = float(problem.decode.latency_s.min()) / mix.output
    return Infeasible(
        "objectives.tpot_s", lowest, f"allow a TPOT of {lowest:.3g} s, or use faster chips"
    )


def explain_none(
    problem: Problem, schema: RagSchema, mix: Mix, within_rate: Sequence[Schedule]
) -> Infeasible:
    """Which objective binds: drops one after the other."""
    wanted = schema.objectives
    if within_rate:
        lowest = min(s.ttft_s for s in within_rate)
        return Infeasible("objectives.ttft_s", lowest, f"allow a TTFT of {lowest:.3g} s")
    per_chip = (Weights(Rate.PER_CHIP),)
    free = search(replace(problem, wanted_qps=None, weights=per_chip)).points
    if not free:
        stalled = search(
            replace(problem, wanted_qps=None, weights=per_chip, max_answer_s=math.inf)
        ).points
        if stalled:
            lowest = min(tpot_of(problem, mix, s) for s in stalled)
            return Infeasible(
                "objectives.tpot_s", lowest, f"allow a TPOT of {lowest:.3g} s, stalls included"
            )
        more = f"give more than {problem.max_chips} accelerators, or ones with more memory"
        if problem.decoding is Decoding.APART:
            more += ", or let decode share them (--decode either)"
        return Infeasible("max_accelerators", None, more)
    allowed = [s for s in free if wanted.ttft_s is None or s.ttft_s <= wanted.ttft_s]
    if not allowed:
        lowest = free[0].ttft_s
        return Infeasible("objectives.ttft_s", lowest, f"allow a TTFT of {lowest:.3g} s")
    assert wanted.qps is not None, "else there would be a plan"
    most = allowed[-1].qps_per_chip
    chips = math.ceil(wanted.qps / most)
    reached = max(s.qps for s in allowed)
    return Infeasible(
        "objectives.qps",
        reached,
        f"ask for {reached:.4g} requests per second, or give about {chips} accelerators",
    )
