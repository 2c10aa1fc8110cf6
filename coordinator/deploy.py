"""From a plan to the rig that runs it on this machine: processes, cores, batches, limits.

The rig file says which models and collections there are; the plan says which roles share a
process, on how many cores, and how large batches are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from coordinator.plan_shares import shares_for
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.llm_rig import STEP_TOKENS
from ragschema.local import CORE
from ragschema.planner.plan_file import StoredGroup, StoredPlan, StoredStage
from ragschema.rig import (
    BatchConfig,
    CoordinatorConfig,
    LlmNodeConfig,
    RetrievalNodeConfig,
    RigConfig,
    StagesConfig,
)

Role = Literal["embed", "generate", "prefill", "decode", "rerank", "rewrite"]
_PLAN: Final = "plan"
#: Batchers wait at most so long; a plan that waits longer waits so long.
_LONGEST_WAIT_MS: Final = 1000.0
#: A prompt is read while a full batch of answers is being written.
_READ_BESIDE: Final = 1
#: Requests beyond the planned ones that may be under way before new ones are refused.
_SPARE: Final = 1.2
_REWRITER: Final = ("rewrite_prefill", "rewrite_decode")


def rig_for(plan: StoredPlan, base: RigConfig, cores: Sequence[int]) -> RigConfig:
    """The rig that a plan asks for.

    Args:
        base: models, data, addresses and everything that a plan does not choose.
        cores: processors of this machine that may be used.

    Raises:
        IncompatibleRequest: the plan needs more of this machine than there is.
        InvalidInput: the plan has a stage, or the rig lacks a model, that cannot be deployed.
    """
    on_cores = [group for group in plan.groups if group.device is not None]
    _check_machine(on_cores, len(cores))
    free = iter(cores)
    parts = [part for group in on_cores for part in _parts(group)]
    llm_nodes = tuple(
        _llm_node(number, part, plan, base, free) for number, part in enumerate(parts)
    )
    return replace(
        base,
        llm_nodes=_with_embedder(llm_nodes, on_cores[0].processes),
        retrieval_nodes=_retrieval_nodes(_stages(plan).get("retrieval"), base),
        coordinator=coordinator_for(plan, base.coordinator),
    )


def _parts(group: StoredGroup) -> tuple[StoredGroup, ...]:
    """What each of a group's processes has of it."""
    count = group.processes
    stages = tuple(
        replace(
            stage,
            batch=math.ceil(stage.batch / count),
            cache_bytes=None if stage.cache_bytes is None else stage.cache_bytes / count,
        )
        for stage in group.stages
    )
    part = StoredGroup(group.accelerators // count, group.device, stages)
    return (part,) * count


def _check_machine(groups: Sequence[StoredGroup], cores: int) -> None:
    for group in groups:
        if group.accelerators % group.processes:
            raise InvalidInput(
                f"{group.accelerators} cores are not divided among {group.processes} processes",
                field=f"{_PLAN}.groups.processes",
                hint="plan again: ragrig plan --pool local",
            )
        if group.device != CORE:
            raise IncompatibleRequest(
                f"the plan needs {group.accelerators} {group.device}; this machine is planned for"
                f" as {CORE}",
                field=f"{_PLAN}.pool",
                hint="plan for this machine: ragrig plan --pool local",
            )
    wanted = sum(group.accelerators for group in groups)
    if wanted > cores:
        raise IncompatibleRequest(
            f"the plan needs {wanted} cores, and this process may use {cores}",
            field=f"{_PLAN}.groups",
            hint="plan again on this machine, or allow more cores",
        )


def _llm_node(
    number: int, group: StoredGroup, plan: StoredPlan, base: RigConfig, free: Iterator[int]
) -> LlmNodeConfig:
    names = _names(group)
    pattern = _pattern(base, names)
    cpus = tuple(next(free) for _ in range(group.accelerators))
    running = {s.name: s.batch for s in group.stages}
    batch = running.get("decode") or running.get("prefill") or pattern.max_running
    if {"prefill", "decode"} <= names:
        batch += _READ_BESIDE
    held = sum(s.cache_bytes or 0.0 for s in group.stages)
    roles = _roles(names, base)
    return replace(
        pattern,
        name=f"llm-{number}",
        roles=roles,
        threads=group.accelerators,
        shares=shares_for(group, roles, plan, pattern.shares),
        cpus=cpus,
        max_running=min(1024, batch),
        engine=replace(
            pattern.engine,
            max_running=batch,
            step_tokens=max(pattern.engine.step_tokens or STEP_TOKENS, batch),
        ),
        # A node's own share of memory is enough, or the plan would not have fitted.
        kv_mib=None if pattern.kv_mib is None else max(pattern.kv_mib, math.ceil(held / 2**20)),
        port=0,
    )


def _pattern(base: RigConfig, names: set[str]) -> LlmNodeConfig:
    """The node of the rig file whose models a group of stages needs."""
    here = [node for node in base.llm_nodes if node.address is None]
    if "rerank" in names:
        here = [node for node in here if node.reranker is not None]
    if names & {"prefill", "decode", *_REWRITER}:
        here = [node for node in here if node.generator.startswith("hf:")]
    if not here:
        raise InvalidInput(
            f"the plan runs {' + '.join(sorted(names))} here, and no llm_node of the rig file has"
            " the models for it",
            field="llm_nodes",
            hint="give one generator: hf:DIR, and reranker: DIR where the plan reranks",
        )
    return here[0]


def _roles(names: set[str], base: RigConfig) -> tuple[Role, ...]:
    known = {"prefill", "decode", "rerank", *_REWRITER}
    if names - known:
        raise InvalidInput(
            f"a rig has no node for {', '.join(sorted(names - known))}",
            field=f"{_PLAN}.groups",
            hint="encoders of a request's own context are planned, and not served",
        )
    found: list[Role] = []
    if {"prefill", "decode"} <= names:
        found.append("generate")
    elif "prefill" in names:
        found.append("prefill")
    elif "decode" in names:
        found.append("decode")
    for name, role, configured in (
        ("rerank", "rerank", base.coordinator.rerank),
        ("rewrite_prefill", "rewrite", base.coordinator.rewrite),
    ):
        if name in names:
            if configured is None:
                raise InvalidInput(
                    f"the plan has {name}, and the rig file no coordinator.{role}",
                    field=f"coordinator.{role}",
                    hint=f"configure {role} in the rig file",
                )
            found.append("rerank" if role == "rerank" else "rewrite")
    return tuple(found)


def _with_embedder(nodes: tuple[LlmNodeConfig, ...], count: int) -> tuple[LlmNodeConfig, ...]:
    """The first ``count`` nodes embed questions too; a plan has no stage of its own for that."""
    return tuple(
        replace(node, roles=("embed", *node.roles)) if at < count else node
        for at, node in enumerate(nodes)
    )


def _retrieval_nodes(stage: StoredStage | None, base: RigConfig) -> tuple[RetrievalNodeConfig, ...]:
    """As many as the plan has hosts; those of the rig file where it has none."""
    if stage is None or stage.hosts is None:
        return base.retrieval_nodes
    wanted = stage.hosts * base.replicas
    first = base.retrieval_nodes[0]
    return tuple(replace(first, name=f"ret-{i}", port=0) for i in range(wanted))


def _names(group: StoredGroup) -> set[str]:
    return {stage.name for stage in group.stages}


def _stages(plan: StoredPlan) -> dict[str, StoredStage]:
    return {stage.name: stage for group in plan.groups for stage in group.stages}


def coordinator_for(plan: StoredPlan, own: CoordinatorConfig) -> CoordinatorConfig:
    """A coordinator with the batches, time-outs and limits of a plan."""
    stages, batchers = _stages(plan), own.stages
    if "retrieval" in stages:
        batchers = replace(batchers, retrieve=_batched(batchers.retrieve, stages["retrieval"]))
    if "rerank" in stages:
        batchers = replace(batchers, rerank=_batched(batchers.rerank, stages["rerank"]))
    running = batchers.generate.max_concurrent
    if "decode" in stages:
        together = [g for g in plan.groups if {"prefill", "decode"} <= _names(g)]
        # Apart, a batch of prompts is read and one waits while a full batch is being written.
        beside = 2 * stages["prefill"].batch
        if together:
            beside = _READ_BESIDE * together[0].processes
        running = stages["decode"].batch + beside
    batchers = replace(
        batchers, generate=replace(batchers.generate, max_concurrent=min(1024, running))
    )
    if plan.iterative_batch is not None:
        batchers = replace(
            batchers, iterative=replace(batchers.iterative, max_batch=plan.iterative_batch)
        )
    limits = replace(own.limits, max_inflight=_inflight(plan, batchers))
    return replace(own, stages=batchers, limits=limits)


def _batched(config: BatchConfig, stage: StoredStage) -> BatchConfig:
    wait_ms = _LONGEST_WAIT_MS if stage.timeout_s is None else 1e3 * stage.timeout_s
    return replace(config, max_batch=stage.batch, max_wait_ms=min(_LONGEST_WAIT_MS, wait_ms))


def _inflight(plan: StoredPlan, batchers: StagesConfig) -> int:
    """What the plan's objectives allow; without any, Little's law at its rate and slowest percent,
    no less than a full decode and as many that wait for it."""
    if plan.under_way is not None:
        return min(65536, plan.under_way)
    e2e_s = plan.simulated.get("e2e_s_p99", 0.0)
    under_way = math.ceil(plan.predicted["qps"] * e2e_s * _SPARE)
    return min(65536, max(2 * batchers.generate.max_concurrent, under_way))
