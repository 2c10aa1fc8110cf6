"""A whole profile: vectors are made, a rig is started, probes are repeated, all is stopped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from coordinator.collections.store import CollectionStore
from coordinator.nodes.clients import LlmClient, RetrievalClient
from coordinator.profile.collection import LISTS_NAME, NAME, SPARSE_NAME, make_collection
from coordinator.profile.crowding import crowded_probe
from coordinator.profile.edge import coordinator_probe, wait_searchable
from coordinator.profile.language import (
    LanguageNode,
    embed_probe,
    generate_probe,
    kv_probe,
    language_node,
    prefill_probe,
    rerank_probe,
)
from coordinator.profile.measure import Measured, Measurement, Step
from coordinator.profile.plan import Scope, local_model, not_here
from coordinator.profile.probe import Probe
from coordinator.profile.searching import (
    Searched,
    index_scan_probe,
    node_index_probe,
    open_searched,
    scan_probe,
)
from coordinator.profile.writing import decode_probe, mixed_probe
from coordinator.supervisor.node import NodeView
from coordinator.supervisor.run import with_rig
from coordinator.supervisor.supervisor import Supervisor
from ragschema.errors import Cancelled, Unavailable
from ragschema.here import this_machine, this_software
from ragschema.profile import FORMAT, Profile
from ragschema.types import Role

_SEARCHABLE_S = 60.0
_QUERIES = 512


@dataclass
class Watcher:
    """Who is told how far it is.

    Attributes:
        phase: what happens before anything is measured.
        step: every point.
    """

    phase: Callable[[str], None]
    step: Callable[[Step], None]


@dataclass(frozen=True)
class Outcome:
    """A profile, and how many points the time limit left out."""

    profile: Profile
    skipped: int


@dataclass
class _Run:
    scope: Scope
    watcher: Watcher
    data_dir: Path
    load_before: float
    measured: Measured | None = field(default=None)

    async def play(self, supervisor: Supervisor) -> None:
        self.watcher.phase("coding vectors to search")
        vectors = self.scope.vectors
        await make_collection(self.data_dir, NAME, vectors, _no_progress)
        await make_collection(self.data_dir, SPARSE_NAME, vectors.sparse(), _no_progress)
        if self.scope.scans_indexes:
            await make_collection(self.data_dir, LISTS_NAME, vectors.more_lists(), _no_progress)
        self.watcher.phase("starting nodes")
        readiness = await supervisor.start()
        if not readiness.ready:
            raise Unavailable(f"the rig did not turn ready: {readiness.problem}")
        addresses = {view.name: view.address or "" for view in supervisor.views()}
        await supervisor.or_failure(self._measure(readiness.url, addresses))

    async def _measure(self, url: str, addresses: dict[str, str]) -> None:
        store = CollectionStore(self.data_dir)
        names = [NAME, SPARSE_NAME, *((LISTS_NAME,) if self.scope.scans_indexes else ())]
        searched = [open_searched(store.directory(name), _QUERIES) for name in names]
        queries = searched[0].queries
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False))
            for name in names:
                await wait_searchable(http, name, queries[0], _SEARCHABLE_S)
            probes = [
                *self._searching(stack, searched[:2], addresses),
                *await self._language(stack, searched, addresses),
                coordinator_probe(http, queries, self.scope.grid.hits),
            ]
            measurement = Measurement(
                self.scope.effort, this_software(), self.load_before, self.watcher.step
            )
            self.measured = await measurement.run(_wanted(probes, self.scope))

    def _searching(
        self, stack: AsyncExitStack, searched: Sequence[Searched], addresses: dict[str, str]
    ) -> list[Probe]:
        probes = [index_scan_probe(self.scope.grid, searched[0].dim)]
        for node in self.scope.retrieval_nodes:
            client = RetrievalClient(node.name, addresses[node.name])
            stack.push_async_callback(client.close)
            client.streams = True
            probes.append(scan_probe(client, node, searched, self.scope.grid))
        return probes

    async def _language(
        self, stack: AsyncExitStack, searched: Sequence[Searched], addresses: dict[str, str]
    ) -> list[Probe]:
        grid = self.scope.grid
        probes: list[Probe] = []
        embedders: set[tuple[str, int]] = set()
        for config in self.scope.llm_nodes:
            client = LlmClient(config.name, addresses[config.name])
            stack.push_async_callback(client.close)
            node = await language_node(client, config)
            if (config.embedder, config.threads) not in embedders:
                embedders.add((config.embedder, config.threads))
                probes.append(embed_probe(node, grid))
            if "index_scan" in config.roles:
                variant, scanned = node.models[Role.INDEX_SCAN], (searched[0], searched[-1])
                probes.append(node_index_probe(client, config, variant, scanned, grid))
            if config.reranker is not None:
                probes.append(rerank_probe(node, grid))
            if local_model(config):
                probes += [
                    prefill_probe(node, grid),
                    decode_probe(node, grid),
                    mixed_probe(node, grid),
                    *await self._crowded(stack, node, addresses),
                    kv_probe(node, grid),
                ]
            elif config.generator == "extractive" and "generate" in config.roles:
                probes.append(generate_probe(node, grid))
        return probes

    async def _crowded(
        self, stack: AsyncExitStack, node: LanguageNode, addresses: dict[str, str]
    ) -> list[Probe]:
        config = self.scope.twins.get(node.config.name)
        if config is None:
            return []
        client = LlmClient(config.name, addresses[config.name])
        stack.push_async_callback(client.close)
        # Its texts are others than the first one's: no node knows them.
        twin = replace(await language_node(client, config), numbers=node.numbers)
        return [crowded_probe([node, twin])]


async def profile_rig(scope: Scope, watcher: Watcher) -> Outcome:
    """Measures everything in scope; must run on the main thread, as a supervisor does.

    Raises:
        Cancelled: a signal stopped it; nothing of it is kept.
        RagrigError: the vectors cannot be coded, or the rig does not start.
    """
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ragrig-profile-") as folder:
        run = _Run(scope, watcher, Path(folder), load_before)
        finished = await with_rig(scope.rig(Path(folder)), _quiet, run.play)
    if not finished or run.measured is None:
        raise Cancelled("profiling was stopped", hint="run it again; nothing was written")
    measured = run.measured
    wanted = tuple(role for role in measured.roles if role.role in scope.roles)
    missing = not_here(scope) | {
        name: why for name, why in measured.failed.items() if name.split()[0] in scope.roles
    }
    return Outcome(Profile(FORMAT, this_machine(), wanted, missing), measured.skipped)


def _wanted(probes: Sequence[Probe], scope: Scope) -> list[Probe]:
    return [p for p in probes if any(kind.role in scope.roles for kind in p.kinds)]


def _quiet(_view: NodeView) -> None:
    """Nodes that come and go are told as one phase."""


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    """Coding is one phase."""
