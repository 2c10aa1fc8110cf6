"""Everything the coordinator consists of, put together from a resolved rig."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coordinator.catalog import Catalog, CatalogConfig
from coordinator.collections.store import CollectionStore
from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import WatchConfig
from coordinator.pipeline import Pipeline
from ragschema.rig import CoordinatorConfig, RigConfig

if TYPE_CHECKING:
    from coordinator.replan.loop import Replanner

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
        replanner: watches whether the plan still fits; None: nobody does.
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
        self.replanner: Replanner | None = None

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
        # Meanwhile its own settings may have changed.
        self.rig = replace(rig, coordinator=self.rig.coordinator)

    async def configure(self, wanted: CoordinatorConfig) -> None:
        """Takes over batches, waits and limits, from the next request on."""
        await self.pipeline.configure(wanted.stages)
        own = replace(self.rig.coordinator, stages=wanted.stages, limits=wanted.limits)
        self.rig = replace(self.rig, coordinator=own)

    async def stop(self) -> None:
        """Lets accepted requests end, then closes everything."""
        await self.pipeline.close()
        await self.catalog.close()
        await self.pool.close()
