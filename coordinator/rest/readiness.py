"""What a rig must have before it can answer every kind of request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.runtime import Runtime


@dataclass(frozen=True)
class ShardGroup:
    """Retrieval nodes that hold the same shards.

    Attributes:
        ready: how many of its nodes are.
    """

    index: int
    nodes: tuple[str, ...]
    ready: int


def shard_groups(runtime: Runtime) -> tuple[ShardGroup, ...]:
    """The groups of replicas, in the order of their shards."""
    ready = _ready_names(runtime)
    rig = runtime.rig
    groups: list[ShardGroup] = []
    for index in range(rig.num_shards):
        names = tuple(
            node.name
            for position, node in enumerate(rig.retrieval_nodes)
            if position % rig.num_shards == index
        )
        groups.append(ShardGroup(index, names, sum(name in ready for name in names)))
    return tuple(groups)


def problems_of(runtime: Runtime) -> list[str]:
    """Why the rig is not ready; empty when it is."""
    ready = _ready_names(runtime)
    problems = [
        f"no LLM node with the role {role} answers"
        for role in runtime.rig.needed_roles
        if not any(role in node.roles and node.name in ready for node in runtime.rig.llm_nodes)
    ]
    problems.extend(
        f"no retrieval node of group {group.index} answers ({', '.join(group.nodes)})"
        for group in shard_groups(runtime)
        if not group.ready
    )
    problems.extend(
        f"collection {name} cannot be opened: {error.message}"
        for name, error in sorted(runtime.catalog.errors().items())
    )
    return problems


def _ready_names(runtime: Runtime) -> frozenset[str]:
    return frozenset(health.name for health in runtime.pool.health() if health.ready)
