"""Every node of a rig: who is up, who holds which shard, who is asked next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.metrics import Metrics
from coordinator.nodes.health import NodeHealth
from coordinator.nodes.llm import LlmNode
from coordinator.nodes.retrieval import RetrievalNode
from coordinator.nodes.watched import WatchConfig
from ragschema.errors import IncompatibleRequest, InvalidInput, Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import ModelInfo, Role, SnapshotId


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


class NodePool:
    """The rig's nodes under watch.

    Raises:
        InvalidInput: a node of the rig has no address.
    """

    def __init__(self, rig: RigConfig, metrics: Metrics, watch: WatchConfig | None = None) -> None:
        watch = watch or WatchConfig()
        self._rig = rig
        self._watch = watch
        self._llm = tuple(LlmNode(n, _address(n), metrics, watch) for n in rig.llm_nodes)
        self._retrieval = tuple(
            RetrievalNode(n, _address(n), metrics, watch) for n in rig.retrieval_nodes
        )
        self._all: tuple[LlmNode | RetrievalNode, ...] = (*self._llm, *self._retrieval)
        groups = rig.num_shards
        self._groups = tuple(ReplicaGroup(self._retrieval[g::groups]) for g in range(groups))
        self._routes: dict[int, tuple[Route, ...]] = {}
        self._turn = 0

    @property
    def llm_nodes(self) -> tuple[LlmNode, ...]:
        """All of them, up or not, in the order of the rig file."""
        return self._llm

    @property
    def disaggregated(self) -> bool:
        """Whether nodes of their own read prompts for others that write answers."""
        return self._rig.disaggregated

    async def start(self) -> None:
        """Connects; returns when every node was checked once, up or not."""
        for node in self._all:
            node.start()
        await asyncio.gather(*(n.first_check() for n in self._all))

    async def close(self) -> None:
        await asyncio.gather(*(n.close() for n in self._all))

    def health(self) -> tuple[NodeHealth, ...]:
        """In the order of the rig file, LLM nodes first."""
        return tuple(n.health() for n in self._all)

    def models(self) -> tuple[ModelInfo, ...]:
        """Models of the nodes that are up, each once."""
        found = (m for n in self._llm if n.ready for m in n.models)
        return tuple(dict.fromkeys(found))

    def routes(self, num_shards: int) -> tuple[Route, ...]:
        """Who holds the shards of a collection with that many."""
        routes = self._routes.get(num_shards)
        if routes is None:
            # The first nodes of the rig stand for the groups, one each.
            all_routes = (
                Route(self._rig.shards_of(g, num_shards), group)
                for g, group in enumerate(self._groups)
            )
            routes = tuple(r for r in all_routes if r.shards)
            self._routes[num_shards] = routes
        return routes

    async def load(self, snapshot: SnapshotId, num_shards: int) -> bool:
        """Loads a snapshot on the nodes that are up, later on the others. Never raises.

        False: a node that is up could not load its shards.
        """
        loaded = await asyncio.gather(
            *(
                node.want(snapshot, route.shards)
                for route in self.routes(num_shards)
                for node in route.group.nodes
            )
        )
        return all(loaded)

    async def unload(self, snapshot: SnapshotId) -> None:
        """Frees a snapshot on every node. Never raises."""
        await asyncio.gather(*(n.drop(snapshot) for n in self._retrieval))

    def embedder(
        self, fingerprint: str | None = None, *, tried: frozenset[str] = frozenset()
    ) -> LlmNode:
        """The least busy node that embeds, with that model if one is named.

        Args:
            tried: names of nodes not to choose again.

        Raises:
            Unavailable: no node that embeds is up.
            IncompatibleRequest: none of them runs that model.
        """
        nodes = self._usable(Role.EMBED, fingerprint, tried)
        if nodes:
            return self._least_busy(nodes)
        up = self._usable(Role.EMBED, None, frozenset())
        if fingerprint is None or not up or any(_runs(n, fingerprint) for n in self._llm):
            raise _nobody("embeds")
        running = ", ".join(sorted({m.name for n in up if (m := n.model(Role.EMBED))}))
        raise IncompatibleRequest(
            f"the collection's vectors come from another embedder than {running}",
            field="collection",
            hint="ingest the collection again, run the embedder it was made with,"
            " or search by vector",
        )

    def generator(
        self, fingerprint: str | None = None, *, tried: frozenset[str] = frozenset()
    ) -> LlmNode:
        """The least busy node that generates, with that model if one is named.

        Raises:
            Unavailable: none is up.
            IncompatibleRequest: none of them runs that model.
        """
        nodes = self._players(Role.GENERATE, fingerprint, tried)
        if nodes:
            return self._least_busy(nodes)
        up = self._usable(Role.GENERATE, None, frozenset())
        if fingerprint is None or not up or self._players(Role.GENERATE, fingerprint, frozenset()):
            raise _nobody("generates")
        running = ", ".join(sorted({m.name for n in up if (m := n.model(Role.GENERATE))}))
        raise IncompatibleRequest(
            f"the datastore's states come from another model than {running}",
            field="generation.knn.collection",
            hint="make the datastore again with the model that answers",
        )

    def reader(self) -> LlmNode:
        """The least busy node that reads prompts, on its own or for others.

        Raises:
            Unavailable: none is up.
        """
        nodes = [n for n in self._llm if n.ready and n.reader is not None]
        if not nodes:
            raise _nobody("generates")
        return self._least_busy(nodes)

    def player(self, role: Role, *, fingerprint: str | None, tried: frozenset[str]) -> LlmNode:
        """The least busy node with a role, with that model if one is named.

        Raises:
            Unavailable: none is up.
        """
        nodes = self._players(role, fingerprint, tried)
        if not nodes:
            raise _nobody(f"has the role {role}")
        return self._least_busy(nodes)

    def can_play(self, role: Role, fingerprint: str | None, tried: frozenset[str]) -> bool:
        """Whether a node not tried yet could take over."""
        return bool(self._players(role, fingerprint, tried))

    def _players(self, role: Role, fingerprint: str | None, tried: frozenset[str]) -> list[LlmNode]:
        nodes = self._usable(role, None, tried)
        return [n for n in nodes if fingerprint is None or _plays(n, role, fingerprint)]

    def can_embed(self, fingerprint: str | None, tried: frozenset[str]) -> bool:
        """Whether a node not tried yet could take over."""
        return bool(self._usable(Role.EMBED, fingerprint, tried))

    def can_generate(self, tried: frozenset[str], fingerprint: str | None = None) -> bool:
        """The same for generating."""
        return bool(self._players(Role.GENERATE, fingerprint, tried))

    def _usable(self, role: Role, fingerprint: str | None, tried: frozenset[str]) -> list[LlmNode]:
        return [
            n
            for n in self._llm
            if n.ready
            and n.name not in tried
            and n.model(role) is not None
            and (fingerprint is None or _runs(n, fingerprint))
        ]

    def _least_busy(self, nodes: list[LlmNode]) -> LlmNode:
        least = min(n.inflight for n in nodes)
        idle = [n for n in nodes if n.inflight == least]
        self._turn += 1
        return idle[self._turn % len(idle)]


def _nobody(verb: str) -> Unavailable:
    return Unavailable(
        f"no LLM node that {verb} is up", hint="see /readyz for the state of every node"
    )


def _runs(node: LlmNode, fingerprint: str) -> bool:
    """Whether it embeds, or did when it was last seen, with that model."""
    return _plays(node, Role.EMBED, fingerprint)


def _plays(node: LlmNode, role: Role, fingerprint: str) -> bool:
    model = node.model(role)
    return model is not None and model.fingerprint == fingerprint


def _address(node: LlmNodeConfig | RetrievalNodeConfig) -> str:
    if node.address is None:
        raise InvalidInput(
            f"node {node.name!r} has no address",
            field="address",
            hint="start the rig with `ragrig up`, or give every node an address",
        )
    return node.address
