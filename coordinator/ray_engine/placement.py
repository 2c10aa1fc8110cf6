"""What each node of a rig needs of a machine, and whether the machines have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from coordinator.ray_engine.library import FPGA
from ragschema.errors import IncompatibleRequest
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

CPU: Final = "CPU"
GPU: Final = "GPU"
_WORDS: Final = {CPU: "processors", GPU: "GPUs", FPGA: "FPGA cards"}
_CARD: Final = "pynq:"


@dataclass(frozen=True)
class Need:
    """A node and what it takes of its machine.

    Attributes:
        name: of the node in the rig.
        resources: amount by Ray's name.
    """

    name: str
    resources: Mapping[str, float]


def on_ray(rig: RigConfig) -> RigConfig:
    """The rig without what only its own machine could say: ports, processors, NUMA nodes."""
    return replace(
        rig,
        llm_nodes=tuple(
            n if n.address is not None else replace(n, port=0, cpus=()) for n in rig.llm_nodes
        ),
        retrieval_nodes=tuple(
            n if n.address is not None else replace(n, port=0, cpus=(), numa_node=None)
            for n in rig.retrieval_nodes
        ),
    )


def replicated(rig: RigConfig) -> RigConfig:
    """A planned rig with as many copies of every LLM node as each shard has of nodes.

    A plan says what runs once; where a shard's nodes may be lost, so may the others.
    """
    copies = range(rig.replicas)
    nodes = tuple(
        replace(node, name=f"{node.name}{f'-{copy}' * (rig.replicas > 1)}")
        for node in rig.llm_nodes
        for copy in copies
    )
    return replace(rig, llm_nodes=nodes)


def needs_of(rig: RigConfig) -> tuple[Need, ...]:
    """One per node that has no address yet; replicas of a shard lie side by side.

    Ray spreads a group's bundles over machines in their order, so neighbours part.
    """
    groups = rig.num_shards
    by_group = [node for g in range(groups) for node in rig.retrieval_nodes[g::groups]]
    nodes: list[LlmNodeConfig | RetrievalNodeConfig] = [*rig.llm_nodes, *by_group]
    return tuple(Need(n.name, _resources(n)) for n in nodes if n.address is None)


def _resources(node: LlmNodeConfig | RetrievalNodeConfig) -> dict[str, float]:
    wanted = {CPU: float(node.threads)}
    if isinstance(node, LlmNodeConfig):
        on_gpu = (node.engine.device or "").startswith("cuda")
    else:
        on_gpu = node.backend == "faiss-gpu"
        if node.backend == "fpga" and node.device.startswith(_CARD):
            wanted[FPGA] = 1.0
    if on_gpu:
        wanted[GPU] = 1.0
    return wanted


def check_fits(needs: Sequence[Need], machines: Sequence[Mapping[str, float]]) -> None:
    """Whether the machines can hold all nodes at once.

    Args:
        machines: what each one has to give.

    Raises:
        IncompatibleRequest: naming the resource that is short.
    """
    for resource in _resources_of(needs):
        wanted = sum(need.resources.get(resource, 0.0) for need in needs)
        there = sum(machine.get(resource, 0.0) for machine in machines)
        if wanted > there:
            raise _short(
                f"the plan needs {_amount(wanted, resource)}, the cluster has {there:g} for it"
            )
        largest = max(machine.get(resource, 0.0) for machine in machines)
        for need in needs:
            if need.resources.get(resource, 0.0) > largest:
                amount = _amount(need.resources[resource], resource)
                raise _short(
                    f"node {need.name} needs {amount} on one machine, and none has more"
                    f" than {largest:g}"
                )
    stuck = _without_place(needs, machines)
    if stuck is not None:
        takes = " and ".join(_amount(n, r) for r, n in stuck.resources.items() if n)
        raise _short(
            f"node {stuck.name} needs {takes} on one machine, and beside the other nodes"
            " no machine has so much left"
        )


def _resources_of(needs: Iterable[Need]) -> list[str]:
    return sorted({name for need in needs for name, amount in need.resources.items() if amount})


def _amount(amount: float, resource: str) -> str:
    return f"{amount:g} {_WORDS.get(resource, resource)}"


def _short(message: str) -> IncompatibleRequest:
    return IncompatibleRequest(
        message,
        field="plan.groups",
        hint="add machines to the cluster, or plan for fewer; `ray status` lists what is free",
    )


def _without_place(needs: Sequence[Need], machines: Sequence[Mapping[str, float]]) -> Need | None:
    """The first node for which largest-first placement finds no machine."""
    free = [dict(machine) for machine in machines]
    order = sorted(needs, key=lambda need: sorted(need.resources.items(), reverse=True))
    for need in sorted(order, key=_rarity, reverse=True):
        home = next(
            (m for m in free if all(m.get(r, 0.0) >= n for r, n in need.resources.items())), None
        )
        if home is None:
            return need
        for resource, amount in need.resources.items():
            home[resource] -= amount
    return None


def _rarity(need: Need) -> tuple[float, float, float]:
    """Nodes on cards and GPUs choose first, then the ones with many processors."""
    wanted = need.resources
    return wanted.get(FPGA, 0.0), wanted.get(GPU, 0.0), wanted.get(CPU, 0.0)
