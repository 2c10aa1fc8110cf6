"""The nodes that a rig names, and which of them hold which shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.metrics import Metrics
from coordinator.nodes.llm import LlmNode
from coordinator.nodes.retrieval import RetrievalNode
from coordinator.nodes.watched import WatchConfig
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import SnapshotId


class ReplicaGroup:
    """Nodes that hold the same shards; they are asked in turn."""

    def __init__(self, nodes: tuple[RetrievalNode, ...]) -> None:
        self.nodes = nodes
        self._next = 0

    def candidates(self, snapshot: SnapshotId) -> Iterator[RetrievalNode]:
        """Nodes that can search the snapshot, each once, the next in turn first.

        Each is looked at when it is reached, so one that was lost meanwhile is
        left out.
        """
        count = len(self.nodes)
        start = self._next = (self._next + 1) % count
        for step in range(count):
            node = self.nodes[(start + step) % count]
            if node.can_search(snapshot):
                yield node


@dataclass(frozen=True)
class Route:
    """Shards of a collection and the nodes that can search them."""

    shards: tuple[int, ...]
    group: ReplicaGroup


class Crew:
    """Nodes of one rig, in the order of its file.

    Args:
        before: nodes of another rig's crew; those that stay as they are stay in this one.

    Raises:
        InvalidInput: a node of the rig has no address.
        IncompatibleRequest: a process that runs on would have to hold other shards.
    """

    def __init__(
        self, rig: RigConfig, metrics: Metrics, watch: WatchConfig, before: Crew | None = None
    ) -> None:
        self.rig = rig
        kept_llm = {} if before is None else before.llm_by_config()
        kept = {} if before is None else before.retrieval_by_config()
        self.llm = tuple(
            kept_llm.get(_llm_key(n)) or LlmNode(n, _address(n), metrics, watch)
            for n in rig.llm_nodes
        )
        self.retrieval = tuple(
            kept.get(_retrieval_key(rig, i)) or RetrievalNode(n, _address(n), metrics, watch)
            for i, n in enumerate(rig.retrieval_nodes)
        )
        if before is not None:
            _check_shards(before, self)
        groups = rig.num_shards
        self._groups = tuple(ReplicaGroup(self.retrieval[g::groups]) for g in range(groups))
        self._routes: dict[int, tuple[Route, ...]] = {}

    @property
    def nodes(self) -> tuple[LlmNode | RetrievalNode, ...]:
        """All of them, LLM nodes first."""
        return (*self.llm, *self.retrieval)

    def llm_by_config(self) -> dict[object, LlmNode]:
        """Its LLM nodes by what must be equal for one to stay."""
        return {_llm_key(n): node for n, node in zip(self.rig.llm_nodes, self.llm, strict=True)}

    def retrieval_by_config(self) -> dict[object, RetrievalNode]:
        """The same of its retrieval nodes; their shards are part of it."""
        return {_retrieval_key(self.rig, i): node for i, node in enumerate(self.retrieval)}

    def routes(self, num_shards: int) -> tuple[Route, ...]:
        """Who holds the shards of a collection with that many."""
        routes = self._routes.get(num_shards)
        if routes is None:
            # The first nodes of the rig stand for the groups, one each.
            all_routes = (
                Route(self.rig.shards_of(g, num_shards), group)
                for g, group in enumerate(self._groups)
            )
            routes = tuple(r for r in all_routes if r.shards)
            self._routes[num_shards] = routes
        return routes


def _llm_key(node: LlmNodeConfig) -> object:
    return (node.name, node.address, node.roles)


def _retrieval_key(rig: RigConfig, index: int) -> object:
    node = rig.retrieval_nodes[index]
    return (node.name, node.address, node.backend, index % rig.num_shards, rig.num_shards)


def _check_shards(before: Crew, after: Crew) -> None:
    """Two watchers of one process would unload each other's shards."""
    staying = {id(node) for node in after.retrieval}
    leaving = {node.address for node in before.retrieval if id(node) not in staying}
    coming = {node.address for node in after.retrieval} & leaving
    if coming:
        raise IncompatibleRequest(
            f"the retrieval node at {min(coming)} would have to hold other shards while it runs",
            field="retrieval_nodes",
            hint="start a node for them at another address",
        )


def _address(node: LlmNodeConfig | RetrievalNodeConfig) -> str:
    if node.address is None:
        raise InvalidInput(
            f"node {node.name!r} has no address",
            field="address",
            hint="start the rig with `ragrig up`, or give every node an address",
        )
    return node.address
