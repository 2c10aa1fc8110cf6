"""Retrieve: one Search call to each group of replicas for a whole batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coordinator.collections.snapshot import Snapshot
from coordinator.nodes.pool import NodePool, Route
from coordinator.nodes.watched import is_callers_fault
from coordinator.stages.probe import CoarseIndex
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
        nprobe: lists to scan, at most nlist.
        bitmap: rows that may be returned, uint8 [ceil(next_row_id / 8)].
    """

    snapshot: Snapshot
    coarse: CoarseIndex | None
    vector: F32
    k: int
    nprobe: int
    refine_k: int | None
    bitmap: U8 | None

    def key(self) -> Hashable:
        """Requests with equal keys may share a call; k and filters may differ."""
        return (self.snapshot, self.nprobe, self.refine_k)


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
        self, requests: Sequence[RetrieveRequest], lists: I32 | None, context: CallContext
    ) -> Answers:
        """Searches for requests of one key together.

        Raises:
            Overloaded: a node's queue is full and no replica can help.
            InvalidInput, DeadlineExceeded: what every node would say.
        """
        manifest = requests[0].snapshot.manifest
        batch = to_batch(requests, lists)
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


def to_batch(requests: Sequence[RetrieveRequest], lists: I32 | None) -> SearchBatch:
    """One message for all: the largest k, and each filter once."""
    first = requests[0]
    filters, filter_of = _shared_filters(requests)
    return SearchBatch(
        snapshot=first.snapshot.id,
        shards=(),
        queries=stack_vectors(requests),
        list_ids=lists,
        k=max(r.k for r in requests),
        refine_k=first.refine_k,
        filters=filters,
        filter_of=filter_of,
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
        if request.bitmap is None:
            continue
        index = seen.setdefault(id(request.bitmap), len(bitmaps))
        if index == len(bitmaps):
            bitmaps.append(request.bitmap)
        filter_of[row] = index
    return tuple(bitmaps), (filter_of if bitmaps else None)
