"""Service objectives that a simulation answers: percentiles under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragschema.planner.infeasible import Infeasible
from ragschema.workload import ObjectivesConfig

#: Objectives, and what the simulator's report calls them.
REPORTED = {
    f"{metric}_{percentile}_s": f"{metric}_s_{percentile}"
    for metric in ("ttft", "tpot", "e2e")
    for percentile in ("p50", "p99")
}


def shares(wanted: ObjectivesConfig, report: Mapping[str, float]) -> dict[str, float]:
    """What is reached over what is allowed, by objective; above 1: it is missed."""
    limits = {name: getattr(wanted, name) for name in REPORTED}
    return {
        name: report[REPORTED[name]] / limit for name, limit in limits.items() if limit is not None
    }


def asks_of_load(wanted: ObjectivesConfig) -> bool:
    """Whether an objective depends on how requests come."""
    return any(getattr(wanted, name) is not None for name in REPORTED)


def asks_of_decode(wanted: ObjectivesConfig) -> bool:
    """Whether an objective depends on how quickly answers are written."""
    return any(
        getattr(wanted, name) is not None for name in REPORTED if not name.startswith("ttft")
    )


def worst(wanted: ObjectivesConfig, report: Mapping[str, float]) -> float:
    """The largest of the shares; 0: there are no such objectives."""
    return max(shares(wanted, report).values(), default=0.0)


def nearest_miss(wanted: ObjectivesConfig, reports: Sequence[Mapping[str, float]]) -> Infeasible:
    """Why none will do, from the one that misses by least; its objectives are what to change."""
    nearest = min(reports, key=lambda report: worst(wanted, report))
    found = shares(wanted, nearest)
    missed = sorted((name for name in found if found[name] > 1), key=lambda n: -found[n])
    assert missed, "asked only where every one misses"
    # A little more than is reached, so that what is printed is enough.
    allow = " and ".join(f"{name} of {nearest[REPORTED[name]] * 1.001:.4g} s" for name in missed)
    return Infeasible(
        f"objectives.{missed[0]}",
        nearest[REPORTED[missed[0]]],
        f"allow {allow}, or plan for a lower load",
    )
