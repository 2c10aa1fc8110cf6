"""Everything the coordinator consists of, put together from a resolved rig."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from coordinator.catalog import Catalog, CatalogConfig
from coordinator.collections.store import CollectionStore
from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import WatchConfig
from coordinator.pipeline import Pipeline
from ragschema.rig import RigConfig

#: New nodes were up when they were told of: beyond this one of them is gone again.
_PATIENCE_S: Final = 30.0


class Runtime:
    """One running coordinator, without its REST server.

    Attributes:
        rig: resolved: every node has an address.
        store: what is on disk.
        catalog: what is served of it.
        pool: the nodes.
        pipeline: answers searches and questions.
        metrics: what all of them measure.
    """

    def __init__(
        self,
        rig: RigConfig,
        watch: WatchConfig | None = None,
        following: CatalogConfig | None = None,
    ) -> None:
        self.rig = rig
        self.metrics = Metrics()
        self.store = CollectionStore(Path(rig.data_dir))
        self.pool = NodePool(rig, self.metrics, watch)
        self.catalog = Catalog(self.store, self.pool, following)
        self.pipeline = Pipeline(rig.coordinator, self.catalog, self.pool, self.metrics)

    @classmethod
    async def start(cls, rig: RigConfig) -> Runtime:
        """Connects to the nodes and opens the collections.

        Nodes that are away do not hold it up: they are used once they answer.

        Raises:
            InvalidInput: a node of the rig has no address.
        """
        runtime = cls(rig)
        await runtime.open()
        return runtime

    async def open(self) -> None:
        try:
            await self.pool.start()
            await self.catalog.start()
        except BaseException:
            await self.stop()
            raise

    async def follow(self, rig: RigConfig) -> None:
        """Goes over to the nodes of another rig without losing a request.

        Raises:
            InvalidInput: a node of the rig has no address.
            IncompatibleRequest: a process that runs on would have to hold other shards.
        """
        await self.pool.follow(rig, _PATIENCE_S)
        self.rig = rig

    async def stop(self) -> None:
        """Lets accepted requests end, then closes everything."""
        await self.pipeline.close()
        await self.catalog.close()
        await self.pool.close()
