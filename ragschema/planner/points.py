"""Operating points of a plan: what it promises at several loads, for a check to hold it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ragschema.planner.arrivals import arrivals_for
from ragschema.planner.plan import Plan
from ragschema.planner.played import Played
from ragschema.planner.simulate import simulate
from ragschema.planner.verify import requests_for

LOADS: Final = (0.3, 0.5, 0.7, 0.9)
#: Requests that a load is played with.
_REQUESTS: Final = 5_000
_METRICS: Final = (
    "ttft_s_p50", "ttft_s_p99", "tpot_s_p50", "tpot_s_p99", "e2e_s_p50", "e2e_s_p99",
)  # fmt: skip


def played_at(
    plan: Plan, load: float, most: int | None = None, count: int | None = None
) -> tuple[float, Played]:
    """Arrivals per second at a share of the plan's rate, and the plan played with them under
    its own time-outs.

    Args:
        most: requests under way, beyond which others are refused; None: nobody is.
        count: requests; None: enough for percentiles.
    """
    rate = load * plan.schedule.qps
    count = count or min(_REQUESTS, requests_for(plan.problem))
    played = simulate(
        plan.problem,
        plan.schedule,
        arrivals_for(plan.schema.arrivals, rate, count, seed=0),
        plan.policy,
        plan.mix.output,
        requests=plan.mix.sample(count, seed=0),
        most=most,
    )
    return rate, played


def points(
    plan: Plan, loads: Sequence[float] = LOADS, most: int | None = None
) -> list[dict[str, float]]:
    """Per load: ``load``, ``arrivals_per_s``, percentiles, and mean seconds of each stage
    (``stage_s.NAME``), its waiting included; ``refused``, of all requests, where some are.

    Args:
        most: as for ``played_at``.
    """
    found = []
    for load in loads:
        rate, played = played_at(plan, load, most)
        report = played.report()
        stages = {
            f"stage_s.{name}": report[f"wait_s_mean.{name}"] + service_s
            for name, service_s in played.service_s.items()
        }
        # What decode takes is known from outside: from the first token to the last.
        stages["stage_s.decode"] = float((played.end_s - played.first_token_s).mean())
        if played.refused:
            stages["refused"] = played.refused_share
        found.append(
            {"load": load, "arrivals_per_s": rate, **{m: report[m] for m in _METRICS}, **stages}
        )
    return found
