"""The actor that keeps one node running on the machine where Ray puts it.

The node is the same process, with the same command line, that ``ragrig up`` starts on one
machine. It ends with its actor: the kernel tells it when the actor's process is gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import ManagedNode, NodeState, NodeView, SupervisionPolicy
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.specs import node_specs
from ragschema.errors import RagrigError
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

#: Starts in a row of a node that was up before, on a machine that may be short of something.
_FOR_EVER = 1_000_000


@dataclass(frozen=True)
class Order:
    """What an actor is told: plain data.

    Attributes:
        folder: of run files and logs, below ``<data_dir>/run/ray``.
        host: address to listen on; None: the machine's own in the cluster.
        programs: command line of each kind of node; None: this installation's.
    """

    kind: str
    node: dict[str, Any]
    data_dir: str
    folder: str
    policy: SupervisionPolicy
    programs: dict[str, tuple[str, ...]] | None = None
    host: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def order_of(
    rig: RigConfig, name: str, folder: str, policy: SupervisionPolicy, programs: Programs | None
) -> Order:
    """The order for one node of a rig."""
    nodes: list[LlmNodeConfig | RetrievalNodeConfig] = [*rig.llm_nodes, *rig.retrieval_nodes]
    node = next(n for n in nodes if n.name == name)
    kind = "llm" if isinstance(node, LlmNodeConfig) else "retrieval"
    given = None if programs is None else asdict(programs)
    return Order(kind, asdict(node), rig.data_dir, folder, policy, given)


def order_from_json(text: str) -> Order:
    """What ``Order.to_json`` wrote."""
    return TypeAdapter(Order).validate_json(text)


def view_to_dict(view: NodeView) -> dict[str, Any]:
    """Plain data; ``view_from_dict`` reads it back."""
    return {**asdict(view), "state": view.state.value}


def view_from_dict(raw: Mapping[str, Any]) -> NodeView:
    """A view as an actor sent it."""
    return NodeView(**{**raw, "state": NodeState(raw["state"])})


class NodeActor:
    """One node under supervision; a crashed process comes back on its port.

    Args:
        order: an ``Order`` as JSON.
        machine: this machine's address in the cluster; None: as Ray says.
        again: whether Ray started this actor anew after it was lost; None: as Ray says.
    """

    def __init__(self, order: str, machine: str | None = None, again: bool | None = None) -> None:
        told = order_from_json(order)
        if machine is None or again is None:
            machine, again = _surroundings()
        host = told.host or machine
        policy = told.policy
        if again:
            policy = replace(policy, max_failed_starts=_FOR_EVER)
        run = RunDir(_folder(told, machine), Path(told.data_dir))
        run.create()
        (spec,) = node_specs(_rig_of_one(told, host), run, _programs(told))
        self._node = ManagedNode(spec, run, policy, _quiet)
        self._grace_s = policy.grace_s
        self._failure: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._supervise())

    async def view(self) -> dict[str, Any]:
        """The node now; see ``view_from_dict``."""
        view = self._node.view
        if self._failure is not None:
            view = replace(view, state=NodeState.FAILED, note=self._failure)
        return view_to_dict(view)

    async def stop(self) -> None:
        """Ends the node: it finishes what it answers, for some seconds."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._node.stop(self._grace_s)

    async def _supervise(self) -> None:
        try:
            await self._node.supervise()
        except RagrigError as error:
            self._failure = str(error)


def _surroundings() -> tuple[str, bool]:
    """This machine's address in the cluster, and whether the actor was lost before."""
    from coordinator.ray_engine.library import load_ray

    ray = load_ray()
    context = ray.get_runtime_context()
    return str(ray.util.get_node_ip_address()), bool(context.was_current_actor_reconstructed)


def _folder(order: Order, machine: str) -> Path:
    return Path(order.data_dir) / "run" / "ray" / f"{order.folder}@{machine}"


def _rig_of_one(order: Order, host: str) -> RigConfig:
    text = json.dumps({**order.node, "host": host})
    if order.kind == "llm":
        node = TypeAdapter(LlmNodeConfig).validate_json(text)
        return RigConfig(data_dir=order.data_dir, llm_nodes=(node,), retrieval_nodes=())
    scanning = TypeAdapter(RetrievalNodeConfig).validate_json(text)
    return RigConfig(data_dir=order.data_dir, llm_nodes=(), retrieval_nodes=(scanning,))


def _programs(order: Order) -> Programs:
    return Programs() if order.programs is None else Programs(**order.programs)


def _quiet(_view: NodeView) -> None:
    """Whoever wants to know asks for a view."""
