"""Every node of a rig: who is up, who holds which shard, who is asked next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

from coordinator.metrics import Metrics
from coordinator.nodes.crew import Crew, Route
from coordinator.nodes.health import NodeHealth
from coordinator.nodes.leaving import LeaveConfig, Leaving
from coordinator.nodes.llm import LlmNode
from coordinator.nodes.retrieval import RetrievalNode
from coordinator.nodes.watched import WatchConfig
from ragschema.errors import IncompatibleRequest, Unavailable
from ragschema.rig import RigConfig
from ragschema.types import ModelInfo, Role, SnapshotId


class NodePool:
    """The rig's nodes under watch.

    Raises:
        InvalidInput: a node of the rig has no address.
    """

    def __init__(
        self,
        rig: RigConfig,
        metrics: Metrics,
        watch: WatchConfig | None = None,
        leaving: LeaveConfig | None = None,
    ) -> None:
        self._metrics = metrics
        self._watch = watch or WatchConfig()
        self._crew = Crew(rig, metrics, self._watch)
        self._coming: Crew | None = None
        self._leaving = Leaving(leaving, self._forget)
        self._snapshots: dict[SnapshotId, int] = {}
        self._turn = 0

    @property
    def llm_nodes(self) -> tuple[LlmNode, ...]:
        """All of them, up or not, in the order of the rig file."""
        return self._crew.llm

    @property
    def disaggregated(self) -> bool:
        """Whether nodes of their own read prompts for others that write answers."""
        return self._crew.rig.disaggregated

    async def start(self) -> None:
        """Connects; returns when every node was checked once, up or not."""
        for node in self._crew.nodes:
            node.start()
        await asyncio.gather(*(n.first_check() for n in self._crew.nodes))

    async def close(self) -> None:
        await self._leaving.close()
        crews = (self._crew, *((self._coming,) if self._coming else ()))
        nodes = {id(node): node for crew in crews for node in crew.nodes}
        await asyncio.gather(*(n.close() for n in nodes.values()))

    def health(self) -> tuple[NodeHealth, ...]:
        """In the order of the rig file, LLM nodes first."""
        return tuple(n.health() for n in self._crew.nodes)

    def leaving(self) -> tuple[NodeHealth, ...]:
        """Nodes of an earlier rig at which something may still be under way."""
        return tuple(n.health() for n in self._leaving.nodes)

    def models(self) -> tuple[ModelInfo, ...]:
        """Models of the nodes that are up, each once."""
        found = (m for n in self._crew.llm if n.ready for m in n.models)
        return tuple(dict.fromkeys(found))

    def routes(self, num_shards: int) -> tuple[Route, ...]:
        """Who holds the shards of a collection with that many."""
        return self._crew.routes(num_shards)

    async def follow(self, rig: RigConfig, patience_s: float) -> None:
        """Goes over to the nodes of another rig; requests under way end where they are.

        New nodes are asked once they are ready and hold their shards, or, should they never
        be, after ``patience_s``. Not to be called while a call of it is under way.

        Raises:
            InvalidInput: a node of the rig has no address.
            IncompatibleRequest: a process that runs on would have to hold other shards.
        """
        before = self._crew
        coming = Crew(rig, self._metrics, self._watch, before)
        known = {id(node) for node in before.nodes}
        fresh = [node for node in coming.nodes if id(node) not in known]
        self._coming = coming
        try:
            for node in fresh:
                node.start()
            # Now it is only noted what they should hold; once they are up they load it.
            await self._equip(coming)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await asyncio.gather(*(node.until_ready() for node in fresh))
            await self._equip(coming)
        except BaseException:
            self._coming = None
            await asyncio.gather(*(node.close() for node in fresh))
            raise
        self._crew, self._coming = coming, None
        staying = {id(node) for node in coming.nodes}
        gone = [node for node in before.nodes if id(node) not in staying]
        names = {(node.name, node.kind) for node in coming.nodes}
        for node in gone:
            if (node.name, node.kind) not in names:
                self._metrics.node_up(node.name, node.kind, False)
        self._leaving.let_go(gone)

    def _forget(self, gone: LlmNode | RetrievalNode) -> None:
        """What its engine told last is no longer so, unless another one has its name."""
        if isinstance(gone, LlmNode) and gone.name not in {n.name for n in self._crew.llm}:
            self._metrics.engine_work.forget(gone.name)
            self._metrics.device_work.forget(gone.name)

    async def _equip(self, crew: Crew) -> None:
        """Loads what is served."""
        for snapshot, num_shards in tuple(self._snapshots.items()):
            await asyncio.gather(*_wanting(crew, snapshot, num_shards))

    async def load(self, snapshot: SnapshotId, num_shards: int) -> bool:
        """Loads a snapshot on the nodes that are up, later on the others. Never raises.

        False: a node that is up could not load its shards.
        """
        self._snapshots[snapshot] = num_shards
        if self._coming is not None:
            await asyncio.gather(*_wanting(self._coming, snapshot, num_shards))
        return all(await asyncio.gather(*_wanting(self._crew, snapshot, num_shards)))

    async def unload(self, snapshot: SnapshotId) -> None:
        """Frees a snapshot on every node. Never raises."""
        self._snapshots.pop(snapshot, None)
        nodes = (*self._crew.retrieval, *(self._coming.retrieval if self._coming else ()))
        await asyncio.gather(*(n.drop(snapshot) for n in nodes))

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
        if fingerprint is None or not up or any(_runs(n, fingerprint) for n in self._crew.llm):
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
        nodes = [n for n in self._crew.llm if n.ready and n.reader is not None]
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
        """Nodes that are leaving only where no other has the role: what was begun before the
        rig changed may still need them."""
        left = [n for n in self._leaving.nodes if isinstance(n, LlmNode)]
        return _able(self._crew.llm, role, fingerprint, tried) or _able(
            left, role, fingerprint, tried
        )

    def _least_busy(self, nodes: list[LlmNode]) -> LlmNode:
        least = min(n.inflight for n in nodes)
        idle = [n for n in nodes if n.inflight == least]
        self._turn += 1
        return idle[self._turn % len(idle)]


def _able(
    nodes: Iterable[LlmNode], role: Role, fingerprint: str | None, tried: frozenset[str]
) -> list[LlmNode]:
    return [
        n
        for n in nodes
        if n.ready
        and n.name not in tried
        and n.model(role) is not None
        and (fingerprint is None or _runs(n, fingerprint))
    ]


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


def _wanting(
    crew: Crew, snapshot: SnapshotId, num_shards: int
) -> Iterator[Coroutine[Any, Any, bool]]:
    return (
        node.want(snapshot, route.shards)
        for route in crew.routes(num_shards)
        for node in route.group.nodes
    )
