"""Retrieve: one Search call to each group of replicas for a whole batch.

Requests that want different numbers of lists share a call: rows of its list
ids are padded. Only much fewer lists than others want get a call of their own,
as do requests that may come back for more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coordinator.collections.snapshot import Snapshot
from coordinator.nodes.crew import Route
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import is_callers_fault
from coordinator.stages.effort import Effort
from coordinator.stages.probe import CoarseIndex
from coordinator.stages.row_filter import Reach, RowFilter
from coordinator.types import Coverage
from ragschema.errors import Overloaded, RagrigError
from ragschema.types import F32, I32, U8, CallContext, SearchBatch, SearchResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RetrieveRequest:
    """One query vector, ready to be searched.

    Attributes:
        snapshot: held open by the request until it is answered.
        coarse: the snapshot's centroids; None for exact collections.
        vector: float32 [dim], unit length where the metric is cosine.
        effort: what the request asked for, as settings.
        reach: lists to scan, with the filter thought of; none of an exact
            collection.
        row_filter: rows that may be returned; None: all.
    """

    snapshot: Snapshot
    coarse: CoarseIndex | None
    vector: F32
    k: int
    effort: Effort
    reach: Reach
    row_filter: RowFilter | None

    def key(self) -> Hashable:
        """Requests with equal keys may share a call; k and filters may differ.

        List counts may too, within a factor of four. Who may go on for a second
        round does not keep others waiting for it.
        """
        size = (self.reach.first.bit_length() + 1) // 2
        return (self.snapshot, self.effort.refine_k, size, self.reach.first < self.reach.most)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the nodes gave; one result per group of replicas that answered."""

    results: tuple[SearchResult, ...]
    coverage: Coverage


class RetrieveStage:
    """Asks every shard's node and says what is missing."""

    def __init__(self, pool: NodePool) -> None:
        self._pool = pool

    async def __call__(
        self,
        requests: Sequence[RetrieveRequest],
        lists: I32 | None,
        context: CallContext,
        *,
        exact: bool = False,
    ) -> Answers:
        """Searches for requests of one key together.

        Args:
            lists: int32 [n, lists], padded with -1; None: all there is.
            exact: compare every stored vector, whatever the index.

        Raises:
            Overloaded: a node's queue is full and no replica can help.
            InvalidInput, DeadlineExceeded: what every node would say.
        """
        manifest = requests[0].snapshot.manifest
        batch = to_batch(requests, lists, exact=exact)
        routes = self._pool.routes(manifest.num_shards)
        answers = await asyncio.gather(*(self._ask(route, batch, context) for route in routes))
        results = tuple(a for a in answers if a is not None)
        missing = sorted(
            shard
            for route, answer in zip(routes, answers, strict=True)
            if answer is None
            for shard in route.shards
        )
        covered = sum(r.rows_covered for r in results)
        fraction = min(1.0, covered / manifest.live_rows) if manifest.live_rows else 1.0
        return Answers(results, Coverage(fraction, tuple(f"shard-{s}" for s in missing)))

    async def _ask(
        self, route: Route, batch: SearchBatch, context: CallContext
    ) -> SearchResult | None:
        """The answer of the first replica that gives one; None when none does."""
        batch = replace(batch, shards=route.shards)
        refused: Overloaded | None = None
        for node in route.group.candidates(batch.snapshot):
            try:
                return await node.search(batch, context)
            except RagrigError as error:
                if is_callers_fault(error):
                    raise
                log.warning("trace %s: node %s: %s", context.trace_id, node.name, error)
                refused = error if isinstance(error, Overloaded) else refused
        if refused is not None:
            raise refused
        return None


def to_batch(
    requests: Sequence[RetrieveRequest], lists: I32 | None, *, exact: bool = False
) -> SearchBatch:
    """One message for all: the largest k, and each filter once."""
    first = requests[0]
    filters, filter_of = _shared_filters(requests)
    return SearchBatch(
        snapshot=first.snapshot.id,
        shards=(),
        queries=stack_vectors(requests),
        list_ids=lists,
        k=max(r.k for r in requests),
        refine_k=None if exact else first.effort.refine_k,
        filters=filters,
        filter_of=filter_of,
        exact=exact,
    )


def stack_vectors(requests: Sequence[RetrieveRequest]) -> F32:
    """float32 [n, dim]."""
    if len(requests) == 1:
        return requests[0].vector[np.newaxis]
    return np.stack([r.vector for r in requests])


def _shared_filters(
    requests: Sequence[RetrieveRequest],
) -> tuple[tuple[U8, ...], I32 | None]:
    # Equal filters come from the snapshot's cache as one array, so identity
    # finds them without comparing bitmaps.
    seen: dict[int, int] = {}
    bitmaps: list[U8] = []
    filter_of = np.full(len(requests), -1, dtype=np.int32)
    for row, request in enumerate(requests):
        if request.row_filter is None:
            continue
        bitmap = request.row_filter.bitmap
        index = seen.setdefault(id(bitmap), len(bitmaps))
        if index == len(bitmaps):
            bitmaps.append(bitmap)
        filter_of[row] = index
    return tuple(bitmaps), (filter_of if bitmaps else None)
