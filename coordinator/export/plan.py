"""A plan laid over a rig file, for machines that are not this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from coordinator.deploy import rig_for
from ragschema.errors import InvalidInput
from ragschema.local import CORE
from ragschema.planner.plan_file import StoredPlan
from ragschema.rig import BatchConfig, RigConfig, StagesConfig

#: Batcher of the coordinator by a plan's stage.
_BATCHERS: Final = {"encode": "embed", "retrieval": "retrieve"}


def planned_rig(plan: StoredPlan, rig: RigConfig) -> RigConfig:
    """The nodes of a plan for cores; of a plan for other devices, its batches over the rig's nodes.

    Raises:
        RagrigError: the rig file has not what the plan needs.
    """
    if is_for_cores(plan):
        cores = sum(group.accelerators for group in plan.groups if group.device is not None)
        return rig_for(plan, rig, range(cores))
    return with_batches(rig, plan.stages)


def is_for_cores(plan: StoredPlan) -> bool:
    """Whether it says which nodes there are, and not only how large their batches are."""
    return all(group.device in (CORE, None) for group in plan.groups)


def with_batches(rig: RigConfig, planned: Mapping[str, tuple[int, int, int]]) -> RigConfig:
    """The rig with a plan's batches.

    Args:
        planned: ``StoredPlan.stages``: devices, batch and group of each stage.

    Raises:
        InvalidInput: the rig has not as many nodes for retrieval as the plan has hosts.
    """
    retrieval = planned.get("retrieval")
    if retrieval is not None and retrieval[0] != len(rig.retrieval_nodes):
        raise InvalidInput(
            f"the plan has {retrieval[0]} hosts for retrieval, the rig {len(rig.retrieval_nodes)}"
            " retrieval nodes",
            field="retrieval_nodes",
            hint="write as many into the rig file, or plan for as many",
        )
    changed: dict[str, BatchConfig] = {}
    for stage, batcher in _BATCHERS.items():
        if stage in planned:
            before: BatchConfig = getattr(rig.coordinator.stages, batcher)
            changed[batcher] = replace(before, max_batch=min(4096, planned[stage][1]))
    if "decode" in planned:
        writing = min(1024, planned["decode"][1])
        changed["generate"] = replace(rig.coordinator.stages.generate, max_concurrent=writing)
        rig = replace(
            rig,
            llm_nodes=tuple(
                replace(node, max_running=writing) if _writes(node.roles) else node
                for node in rig.llm_nodes
            ),
        )
    options: Mapping[str, Any] = changed
    stages: StagesConfig = replace(rig.coordinator.stages, **options)
    return replace(rig, coordinator=replace(rig.coordinator, stages=stages))


def _writes(roles: tuple[str, ...]) -> bool:
    return bool({"generate", "decode"} & set(roles))
