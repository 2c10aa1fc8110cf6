"""A retrieval node under watch, and which shards it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from coordinator.metrics import Metrics
from coordinator.nodes.card_work import card_detail
from coordinator.nodes.clients import RetrievalClient
from coordinator.nodes.health import NodeHealth, NodeKind
from coordinator.nodes.watched import WatchConfig, WatchedNode, is_loss
from ragschema.errors import NotFound, RagrigError
from ragschema.rig import RetrievalNodeConfig
from ragschema.types import CallContext, SearchBatch, SearchResult, SnapshotId
from ragschema.wire.convert import snapshot_from_wire

log = logging.getLogger(__name__)


class RetrievalNode(WatchedNode[RetrievalClient]):
    """Keeps what the node holds equal to what it should hold.

    ``want`` and ``drop`` say what it should hold and act at once where the
    node is up; the checks mend the difference, so a node that comes back, with
    or without its memory, ends up with its shards.
    """

    kind: ClassVar[NodeKind] = "retrieval"

    def __init__(
        self, config: RetrievalNodeConfig, address: str, metrics: Metrics, watch: WatchConfig
    ) -> None:
        self._wanted: dict[SnapshotId, tuple[int, ...]] = {}
        self._held: set[SnapshotId] = set()
        self._strange: set[SnapshotId] = set()
        self._load_errors: dict[SnapshotId, tuple[str, float]] = {}
        self._changes = 0
        self._loading = asyncio.Lock()
        self._mending: asyncio.Task[None] | None = None
        required = (f"backend:{config.backend}", "filter")
        super().__init__(config.name, address, required, metrics, watch)

    def can_search(self, snapshot: SnapshotId) -> bool:
        return self.ready and snapshot in self._held

    async def search(self, batch: SearchBatch, context: CallContext) -> SearchResult:
        """Asks the node; a failure is noted before it is raised."""
        self.inflight += 1
        try:
            return await self.client.search(batch, context)
        except NotFound as error:
            # It forgot the snapshot: most likely it was restarted.
            self._held.discard(batch.snapshot)
            self.failed(error)
            raise
        except RagrigError as error:
            self.failed(error)
            raise
        finally:
            self.inflight -= 1

    async def want(self, snapshot: SnapshotId, shards: tuple[int, ...]) -> bool:
        """Loads the shards if the node is up, else as soon as it is. Never raises.

        False: the node is up and could not load them.
        """
        self._wanted[snapshot] = shards
        if self.ready:
            await self._mend()
        return snapshot not in self._load_errors

    async def drop(self, snapshot: SnapshotId) -> None:
        """Unloads a snapshot if the node is up, else as soon as it is. Never raises."""
        self._wanted.pop(snapshot, None)
        self._load_errors.pop(snapshot, None)
        if snapshot in self._held:
            self._held.discard(snapshot)
            self._strange.add(snapshot)
        if self.ready:
            await self._mend()

    def health(self) -> NodeHealth:
        known = super().health()
        if known.error is not None or not self._load_errors:
            return known
        message = next(iter(self._load_errors.values()))[0]
        return replace(known, error=message)

    async def close(self) -> None:
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        await super().close()

    def _connect(self) -> RetrievalClient:
        return RetrievalClient(self.name, self.address)

    def _greeted(self, capabilities: frozenset[str]) -> None:
        self.client.streams = "stream" in capabilities

    async def _inspect(self, restarted: bool, context: CallContext) -> Mapping[str, object]:
        changes = self._changes
        reply = await self.client.status(context)
        self._metrics.node_work.told(self.name, reply)
        card: Mapping[str, object] | None = None
        if reply.HasField("card"):
            self._metrics.card_work.told(self.name, reply.card)
            card = card_detail(reply.card)
        told = {snapshot_from_wire(s.snapshot): tuple(s.shards) for s in reply.loaded}
        if restarted:
            # Whatever it holds is from before our time: an earlier coordinator
            # may have left other data under the same name.
            self._held.clear()
            self._load_errors.clear()
            self._strange = set(told)
        elif changes == self._changes and not self._loading.locked():
            # Only then is the reply newer than what we know ourselves.
            self._held &= set(told)
            self._strange &= set(told)
        if not self._settled() and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._mend())
        return {
            "backend": reply.backend,
            "device": reply.device,
            "loaded": [
                {
                    "collection": s.snapshot.collection,
                    "generation": s.snapshot.generation,
                    "shards": list(s.shards),
                    "rows": s.rows,
                    "resident_bytes": s.resident_bytes,
                }
                for s in reply.loaded
            ],
            "running": reply.running,
            "waiting": reply.waiting,
            "searches_total": reply.searches_total,
            "queries_total": reply.queries_total,
            "batches_total": reply.batches_total,
            "codes_scanned_total": reply.codes_scanned_total,
            "bytes_scanned_total": reply.bytes_scanned_total,
            "survivors_total": reply.survivors_total,
            "queue_us_total": reply.queue_us_total,
            "scan_us_total": reply.scan_us_total,
            "uptime_s": reply.uptime_s,
            **({} if card is None else {"card": card}),
        }

    def _settled(self) -> bool:
        return not self._strange and not self._due()

    def _due(self) -> list[tuple[SnapshotId, tuple[int, ...]]]:
        """What is wanted, not held, and not just failed."""
        now_s = time.monotonic()
        return [
            (snapshot, shards)
            for snapshot, shards in self._wanted.items()
            if snapshot not in self._held and self._load_errors.get(snapshot, ("", 0.0))[1] <= now_s
        ]

    async def _mend(self) -> None:
        async with self._loading:
            context = CallContext.start(self._config.load_timeout_s)
            for snapshot in list(self._strange):
                if not await self._unload(snapshot, context):
                    return
            for snapshot, shards in self._due():
                if snapshot in self._wanted and not await self._load(snapshot, shards, context):
                    return

    async def _unload(self, snapshot: SnapshotId, context: CallContext) -> bool:
        """False when the node is away."""
        try:
            await self.client.unload(snapshot, context)
        except RagrigError as error:
            log.warning("node %s did not unload %s: %s", self.name, snapshot, error)
            if is_loss(error):
                self.check_soon()
                return False
        self._changes += 1
        self._strange.discard(snapshot)
        return True

    async def _load(
        self, snapshot: SnapshotId, shards: tuple[int, ...], context: CallContext
    ) -> bool:
        """False when the node is away."""
        try:
            await self.client.load(snapshot, shards, context)
        except RagrigError as error:
            log.warning("node %s did not load %s: %s", self.name, snapshot, error)
            if is_loss(error):
                self.check_soon()
                return False
            again_s = time.monotonic() + self._config.retry_load_s
            self._load_errors[snapshot] = (f"cannot load {snapshot.collection}: {error}", again_s)
            return True
        self._changes += 1
        self._load_errors.pop(snapshot, None)
        if snapshot in self._wanted:
            self._held.add(snapshot)
        else:
            self._strange.add(snapshot)
        return True
