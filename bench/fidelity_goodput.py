"""Requests within objectives: of the plan made for them, and of rigs that people would write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from bench.common import note
from bench.fidelity_plans import Deployed, deployed, schema_of, usable
from bench.fidelity_run import Work, measured, put
from bench.fidelity_setup import Stand
from coordinator.load.report import Objectives
from ragschema.errors import Unavailable
from ragschema.planner.problem import Decoding
from ragschema.rig import CoordinatorConfig, LlmNodeConfig, RigConfig
from ragschema.workload import ObjectivesConfig

#: What answers are to keep.
TTFT_S: Final = 3.0
TPOT_S: Final = 0.12
#: Shares of a plan's rate at which 99 of 100 are to keep them; the largest that a plan bears.
LOADS: Final = (0.85, 0.75, 0.65, 0.55, 0.45)
_SEED: Final = 4711


def goodput(stand: Stand, work: Work, prompt: int, requests: int) -> dict[str, Any]:
    """Goodput of each rig at the rate that the plan sustains; of the plan also at the load at which
    it promises the objectives."""
    load, chosen = planned_for(stand, work, prompt)
    note(f"goodput at {chosen.qps:.2f} requests per second; the plan: {choices(chosen)}")
    found = {}
    for name, rig in {"planned": chosen.rig, **rigs(stand.rig)}.items():
        found[name] = _within(rig, work, requests, chosen.qps)
        note(f"  {name}: {found[name]:.3f} within the objectives")
    promised = _within(chosen.rig, work, requests, load * chosen.qps)
    note(f"  planned, at {load:g} of that: {promised:.3f}")
    planned = found["planned"]
    best = max(value for name, value in found.items() if name not in ("planned", "default"))
    return {
        "goodput_gain": planned / max(found["default"], 1e-3),
        "goodput_gain_best_of_five": planned / max(best, 1e-3),
        "goodput_rate_per_s": chosen.qps,
        "goodput_per_s": found,
        "goodput_promised": {"rate_per_s": load * chosen.qps, "goodput_per_s": promised},
        "goodput_plan": choices(chosen) | {"under_way": chosen.stored.under_way},
    }


def _within(rig: RigConfig, work: Work, requests: int, rate: float) -> float:
    limits = Objectives(ttft_ms=1e3 * TTFT_S, tpot_ms=1e3 * TPOT_S)
    (report,) = measured(rig, [put(work, requests, _SEED, rate_per_s=rate, objectives=limits)])
    return report.goodput_per_s or 0.0


def planned_for(stand: Stand, work: Work, prompt: int) -> tuple[float, Deployed]:
    """Of the plans that keep the objectives at some load, the one that then answers most.

    Raises:
        Unavailable: none keeps them at any.
    """
    found: list[tuple[float, Deployed]] = []
    why: Unavailable | None = None
    for load in LOADS:
        wanted = ObjectivesConfig(ttft_p99_s=TTFT_S, tpot_p99_s=TPOT_S, load=load)
        schema = schema_of(stand, work, prompt, wanted)
        try:
            found.append((load, deployed(stand, "goodput", schema, Decoding.EITHER, 16)))
        except Unavailable as error:
            why = error
    if not found:
        assert why is not None, "some load was tried"
        raise why
    return max(found, key=lambda one: one[0] * one[1].qps)


def choices(one: Deployed) -> dict[str, Any]:
    """What the plan chose, by stage."""
    return {c.stage: [c.count, c.batch] for c in one.plan.schedule.choices}


def rigs(base: RigConfig) -> dict[str, RigConfig]:
    """The rig that nobody planned, and five that people would write for two cores."""
    (writer,) = base.llm_nodes
    cores = usable()[:2]
    apart = (
        replace(writer, name="reader", roles=("embed", "prefill"), threads=1, cpus=(cores[0],),
                max_running=8),
        replace(writer, name="writer", roles=("decode",), threads=1, cpus=(cores[-1],),
                max_running=8),
    )  # fmt: skip
    twins = tuple(
        replace(writer, name=f"writer-{at}", threads=1, cpus=(core,), max_running=8)
        for at, core in enumerate(cores)
    )
    return {
        "default": _running(base, (writer,), 1),
        "batch-4": _running(base, (replace(writer, max_running=4),), 4),
        "batch-8": _running(base, (replace(writer, max_running=8),), 8),
        "batch-32": _running(base, (replace(writer, max_running=32),), 32),
        "apart": _running(base, apart, 16),
        "twins": _running(base, twins, 16),
    }


def _running(base: RigConfig, nodes: tuple[LlmNodeConfig, ...], running: int) -> RigConfig:
    """With so many answers under way."""
    stages = base.coordinator.stages
    stages = replace(stages, generate=replace(stages.generate, max_concurrent=running))
    coordinator: CoordinatorConfig = replace(base.coordinator, stages=stages)
    return replace(base, llm_nodes=nodes, coordinator=coordinator)
