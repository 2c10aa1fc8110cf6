"""How fast does the planner's simulator play requests, and how close is it to queueing theory?"""

from __future__ import annotations

import time

import numpy as np

from bench.common import emit, machine, options, typed_failures
from ragschema.planner.arrivals import poisson
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.play import Candidate, play
from ragschema.planner.problem import Problem
from ragschema.planner.reproduce.rago import case4, rago_pool
from ragschema.planner.schedule import Schedule
from ragschema.planner.simulate import Policy, simulate
from ragschema.planner.stages import StageKind, StageTable

_SEED = 11
_REQUESTS = 100_000
_THEORY_REQUESTS = 400_000
_TIMES = 3


def main() -> None:
    """Prints seconds for 100 000 requests of case 4, and errors of mean waits."""
    parser = options(__doc__ or "")
    parser.add_argument("--requests", type=int, default=_REQUESTS, metavar="N", help="of case 4")
    given = parser.parse_args()
    with typed_failures():
        seconds = case4_s(given.requests)
        errors = {**m_d_1(_THEORY_REQUESTS), **full_batches(_THEORY_REQUESTS)}
        emit(
            {
                "question": "how fast are 100 000 requests played, and are mean waits right",
                "seed": _SEED,
                "requests": given.requests,
                "case4_s": round(min(seconds), 3),
                "case4_all_s": [round(each, 3) for each in seconds],
                "mean_wait_error_pct": {name: round(each, 3) for name, each in errors.items()},
                "mean_wait_max_error_pct": round(max(map(abs, errors.values())), 3),
                "machine": machine(),
            },
            given,
        )


def case4_s(requests: int) -> list[float]:
    """Seconds of each run of case 4's best plan at 70 % of its rate."""
    plan = make_plan(case4("llama-3-8b"), rago_pool())
    assert isinstance(plan, Plan), "case 4 has a plan"
    arrivals_s = poisson(0.7 * plan.schedule.qps, requests, _SEED)
    found = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        simulate(plan.problem, plan.schedule, arrivals_s, plan.policy, plan.mix.output)
        found.append(time.perf_counter() - started)
    return found


def m_d_1(requests: int) -> dict[str, float]:
    """Per cent from ``rho D / (2 (1 - rho))``, Pollaczek-Khinchine with a constant service."""
    found = {}
    for load in (0.3, 0.6, 0.8):
        problem, schedule = _server(1)
        waits = _mean_wait_s(problem, schedule, load, requests)
        found[f"M/D/1 at {load}"] = 100 * (waits / (load / (2 * (1 - load))) - 1)
    return found


def full_batches(requests: int) -> dict[str, float]:
    """Per cent from Lindley's recursion over batches of 4, and the time to fill one."""
    rate, batch = 3.0, 4
    problem, schedule = _server(batch)
    gaps = np.random.default_rng(_SEED + 1).gamma(batch, 1 / rate, requests)
    steps = np.concatenate([[0.0], np.cumsum(1.0 - gaps)])
    queueing_s = (steps - np.minimum.accumulate(steps)).mean()
    wanted_s = float(queueing_s) + (batch - 1) / (2 * rate)
    waits = _mean_wait_s(problem, schedule, rate, requests)
    return {"E4/D/1 at 0.75": 100 * (waits / wanted_s - 1)}


def _mean_wait_s(problem: Problem, schedule: Schedule, rate: float, requests: int) -> float:
    arrivals_s = poisson(rate, requests, _SEED)
    played = simulate(problem, schedule, arrivals_s, Policy(), output=1, seed=_SEED)
    return float(played.wait_s["prefill"].mean())


def _server(batch: int) -> tuple[Problem, Schedule]:
    """A stage that takes a second for a batch, and a decode that holds nobody up."""
    prefill = StageTable("prefill", StageKind.CHIP, (1,), (batch,), np.array([[1.0]]))
    decode = StageTable("decode", StageKind.DECODE, (1,), (4096,), np.array([[1e-6]]))
    problem = Problem((prefill, decode), 1, 2)
    schedule = play(problem, Candidate(((0,),), (1,), (batch,), 1, 4096))
    assert schedule is not None, "it fits"
    return problem, schedule


if __name__ == "__main__":
    main()
