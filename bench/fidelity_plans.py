"""Plans of this machine by its own profile, and the rigs that deploy them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from bench.fidelity_run import Work
from bench.fidelity_setup import VECTORS, Stand
from coordinator.deploy import rig_for
from ragschema.errors import Unavailable
from ragschema.here import this_machine
from ragschema.local import local_pool
from ragschema.planner.assemble import SearchSpace
from ragschema.planner.axes import Objective
from ragschema.planner.infeasible import Infeasible
from ragschema.planner.plan import Plan, make_plan
from ragschema.planner.plan_file import StoredPlan, read_plan, write_plan
from ragschema.planner.played import Played
from ragschema.planner.problem import Decoding
from ragschema.planner.simulate import simulate
from ragschema.planner.stages import F64
from ragschema.pool import ChipPool, Pool
from ragschema.rig import RigConfig
from ragschema.workload import ObjectivesConfig, RagSchema, parse_schema


@dataclass(frozen=True)
class Deployed:
    """A plan as it is run."""

    name: str
    plan: Plan
    stored: StoredPlan
    rig: RigConfig

    @property
    def qps(self) -> float:
        """What the plan says it sustains."""
        return self.plan.schedule.qps

    def played(self, arrivals_s: F64) -> Played:
        """What the plan says of requests that arrive then."""
        plan = self.plan
        return simulate(
            plan.problem, plan.schedule, arrivals_s, plan.policy, plan.mix.output,
            requests=plan.mix.sample(len(arrivals_s), seed=0),
        )  # fmt: skip


def schema_of(
    stand: Stand, work: Work, prompt: int, objectives: ObjectivesConfig | None = None
) -> RagSchema:
    """The workload as a planner reads it; ``prompt`` tokens were counted."""
    text = f"""
version: 1
name: fidelity
generator: {{model: {stand.model / "config.json"}, weights: fp32, kv: fp32}}
lengths: {{question: {work.question}, prompt: {prompt}, output: {work.output}}}
database:
  vectors: {VECTORS.count}
  index: ivfpq
  nlist: {VECTORS.nlist}
  dims: {VECTORS.dim}
  bytes_per_vector: {VECTORS.m}
  scan_share: {work.nprobe / VECTORS.nlist}
  results: {work.passages}
"""
    schema = parse_schema(text, "fidelity")
    return replace(schema, objectives=objectives or schema.objectives)


def deployed(
    stand: Stand,
    name: str,
    schema: RagSchema,
    decoding: Decoding,
    batch: int,
    cores: int | None = None,
) -> Deployed:
    """The plan of most requests per second within these bounds.

    Raises:
        Unavailable: there is none, which says why.
    """
    space = SearchSpace(max_batch=8, max_decode_batch=batch, decoding=decoding)
    plan = make_plan(schema, pool_of(stand, cores), Objective.MAX_QPS_PER_CHIP, space)
    if isinstance(plan, Infeasible):
        raise Unavailable(f"no plan for {name}: {plan.binding}: {plan.change}")
    path = stand.directory / f"{name}.yaml"
    write_plan(plan, path)
    stored = read_plan(path)
    return Deployed(name, plan, stored, rig_for(stored, stand.rig, usable()))


def pool_of(stand: Stand, cores: int | None = None) -> Pool:
    """This machine, or part of its cores, all of which a plan has to use."""
    pool = local_pool(this_machine(), stand.profile, stand.beyond)
    cores = cores or pool.max_chips
    (chips,) = pool.chips
    return replace(pool, chips=(ChipPool(chips.device, cores),), min_chips=cores, max_chips=cores)


def usable() -> list[int]:
    """Processors of this process."""
    return sorted(os.sched_getaffinity(0))
