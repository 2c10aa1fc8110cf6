"""Live snapshots: which committed state of each collection is served now.

A commit is seen within a fraction of a second, whoever made it. The new
generation is opened off the event loop and loaded on the nodes before it
becomes current; requests under way keep the one they started with.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from weakref import WeakValueDictionary

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import CollectionStore
from coordinator.nodes.pool import NodePool
from coordinator.stages.effort import Planner
from coordinator.stages.probe import CoarseIndex
from coordinator.stages.row_filter import RowFilters
from ragschema.errors import InternalError, NotFound, RagrigError
from ragschema.types import SnapshotId

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CatalogConfig:
    """How commits are followed.

    Attributes:
        period_s: between two looks at the manifests.
        grace_s: how long a replaced snapshot stays open for callers that hold
            it without a lease.
        retry_s: pause after a collection failed to open.
    """

    period_s: float = 0.3
    grace_s: float = 3.0
    retry_s: float = 5.0


class Live:
    """A served snapshot; ``with live:`` keeps it open and loaded.

    Attributes:
        coarse: its centroids ready to be searched; None for exact collections.
        planner: turns what requests ask for into settings of its index.
        filters: its rows by metadata.
    """

    __slots__ = ("coarse", "filters", "planner", "retired_s", "snapshot", "users")

    def __init__(self, snapshot: Snapshot, coarse: CoarseIndex | None) -> None:
        self.snapshot = snapshot
        self.coarse = coarse
        self.planner = Planner(snapshot.manifest)
        self.filters = RowFilters(snapshot)
        self.users = 0
        self.retired_s: float | None = None

    def __enter__(self) -> Live:
        self.users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.users -= 1


@dataclass(frozen=True)
class _Failure:
    """A generation that did not open; None: not even its manifest could be read."""

    generation: int | None
    error: RagrigError
    again_s: float


class Catalog:
    """Follows the store's collections and keeps the nodes in step."""

    def __init__(
        self, store: CollectionStore, pool: NodePool, config: CatalogConfig | None = None
    ) -> None:
        self._store = store
        self._pool = pool
        self._config = config or CatalogConfig()
        self._live: dict[str, Live] = {}
        self._retired: list[Live] = []
        self._failures: dict[str, _Failure] = {}
        # Weak: a lock is gone when the last refresh of its name is.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves what is there; returns when all of it was opened or found broken."""
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for live in (*self._live.values(), *self._retired):
            live.snapshot.close()
        self._live.clear()
        self._retired.clear()

    def names(self) -> list[str]:
        """Collections that are served, sorted."""
        return sorted(self._live)

    def errors(self) -> Mapping[str, RagrigError]:
        """Why collections cannot be served in their committed state."""
        return {name: failure.error for name, failure in self._failures.items()}

    def current(self, name: str) -> Snapshot:
        """The served snapshot; it stays open for a few seconds after a commit.

        Raises:
            NotFound: there is no such collection.
            RagrigError: why it cannot be opened, most often CorruptData.
        """
        return self.use(name).snapshot

    def use(self, name: str) -> Live:
        """The same, for callers that hold it longer: ``with catalog.use(name) as live``."""
        live = self._live.get(name)
        if live is not None:
            return live
        failure = self._failures.get(name)
        if failure is not None:
            # A copy: the edge writes its trace id into what it reports.
            raise copy.copy(failure.error) from failure.error
        raise NotFound(
            f"there is no collection {name!r}",
            field="collection",
            hint="list collections with `ragrig status` or GET /v1/collections",
        )

    async def refresh(self, name: str | None = None) -> None:
        """Returns when what was committed before the call is served. Never raises.

        Args:
            name: one collection; None for all.
        """
        if name is not None:
            await self._refresh_one(name)
            return
        loop = asyncio.get_running_loop()
        names = await loop.run_in_executor(None, self._store.names)
        await asyncio.gather(
            *(self._refresh_one(n) for n in {*names, *self._live, *self._failures})
        )

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._config.period_s)
            try:
                loop = asyncio.get_running_loop()
                changed = await loop.run_in_executor(None, self._changed, dict(self._live))
                await asyncio.gather(*(self._refresh_one(n) for n in changed))
                await self._free_retired()
            except Exception:
                log.exception("following the collections failed; trying again")

    def _changed(self, live: Mapping[str, Live]) -> list[str]:
        """Names worth a refresh; a few stats, off the event loop."""
        now_s = time.monotonic()
        failures = dict(self._failures)
        changed = []
        for name in {*self._store.names(), *live, *failures}:
            try:
                generation = self._store.generation(name)
            except RagrigError:
                generation = None
            served = live[name].snapshot.id.generation if name in live else None
            failure = failures.get(name)
            if failure is not None and failure.generation == generation:
                if failure.again_s <= now_s:
                    changed.append(name)
            elif generation != served:
                changed.append(name)
        return changed

    async def _refresh_one(self, name: str) -> None:
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            # A commit may land while its predecessor is being opened, and may
            # take files of it away; the second look then finds the newer one.
            for _ in range(3):
                if await self._advance(name):
                    break

    async def _advance(self, name: str) -> bool:
        """One step towards the committed state; False when another is worth trying."""
        loop = asyncio.get_running_loop()
        generation: int | None = None
        served = self._live.get(name)
        try:
            generation = await loop.run_in_executor(None, self._store.generation, name)
            if generation is None:
                self._failures.pop(name, None)
                await self._remove(name)
                return True
            if served is not None and served.snapshot.id.generation == generation:
                self._failures.pop(name, None)
                return True
            live = await loop.run_in_executor(None, self._open, name)
        except NotFound:
            return False
        except RagrigError as error:
            self._note_failure(name, generation, error)
            return generation is None or await self._is_committed(SnapshotId(name, generation))
        except Exception as error:
            log.exception("opening collection %s failed", name)
            self._note_failure(name, generation, InternalError(f"cannot open {name}: {error}"))
            return True
        return await self._switch(name, live)

    def _open(self, name: str) -> Live:
        snapshot = Snapshot.open(self._store.directory(name))
        centroids = snapshot.centroids
        if centroids is None:
            return Live(snapshot, None)
        metric = snapshot.manifest.metric
        coarse = CoarseIndex(centroids, metric, snapshot.rotation, snapshot.offset)
        return Live(snapshot, coarse)

    async def _switch(self, name: str, live: Live) -> bool:
        """Loads the snapshot and serves it; False when a newer one is committed already."""
        snapshot = live.snapshot
        loaded = await self._load(snapshot)
        old = self._live.get(name)
        if not loaded and old is not None and not await self._is_committed(snapshot.id):
            # Nodes only load what is committed, so this one came too late. Its
            # predecessor serves on until the newer one is loaded.
            await self._pool.unload(snapshot.id)
            snapshot.close()
            return False
        self._live[name] = live
        self._failures.pop(name, None)
        log.info("serving %s generation %d", name, snapshot.id.generation)
        if old is not None:
            self._retire(old)
            await self._free_retired()
        return await self._is_committed(snapshot.id)

    async def _load(self, snapshot: Snapshot) -> bool:
        manifest = snapshot.manifest
        # Nobody searches an empty collection.
        return not manifest.live_rows or await self._pool.load(snapshot.id, manifest.num_shards)

    async def _is_committed(self, snapshot: SnapshotId) -> bool:
        loop = asyncio.get_running_loop()
        try:
            generation = await loop.run_in_executor(
                None, self._store.generation, snapshot.collection
            )
        except RagrigError:
            return False
        return generation == snapshot.generation

    async def _remove(self, name: str) -> None:
        live = self._live.pop(name, None)
        if live is not None:
            log.info("collection %s was dropped", name)
            self._retire(live)

    def _note_failure(self, name: str, generation: int | None, error: RagrigError) -> None:
        known = self._failures.get(name)
        if known is None or known.generation != generation:
            log.error("collection %s cannot be opened: %s", name, error)
        again_s = time.monotonic() + self._config.retry_s
        self._failures[name] = _Failure(generation, error, again_s)

    def _retire(self, live: Live) -> None:
        live.retired_s = time.monotonic()
        self._retired.append(live)

    async def _free_retired(self) -> None:
        """Unloads and closes what nobody uses any more."""
        now_s = time.monotonic()
        newest: dict[str, Live] = {live.snapshot.id.collection: live for live in self._retired}
        for live in list(self._retired):
            assert live.retired_s is not None
            # Of many quick commits only the last predecessor gets the grace,
            # so that a burst does not fill the nodes' memory.
            waits = live is newest[live.snapshot.id.collection]
            if live.users or (waits and now_s < live.retired_s + self._config.grace_s):
                continue
            self._retired.remove(live)
            await self._pool.unload(live.snapshot.id)
            live.snapshot.close()
