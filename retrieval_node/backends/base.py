"""What a scan backend is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ragschema.types import F32, I32, I64, U8
from retrieval_node.shard import ShardSet

#: Called between pieces of work; raises Cancelled or DeadlineExceeded to stop.
Checkpoint = Callable[[], None]


def never_stop() -> None:
    """The checkpoint of a caller that always waits for the end."""


@dataclass(frozen=True)
class ScanRequest:
    """The PQ scan of one batch; validated before it gets here.

    Attributes:
        shards: loaded shards to scan.
        queries: float32 [n, dim], writable, C-contiguous.
        lists: int64, list ids of all queries, one after the other.
        starts: int64 [n + 1], borders of the queries in ``lists``.
        k: candidates wanted per query.
        filters: uint8 [f, bytes], bitmaps over row ids.
        filter_of: int32 [n], -1 for none.
    """

    shards: tuple[int, ...]
    queries: F32
    lists: I64
    starts: I64
    k: int
    filters: U8
    filter_of: I32
    checkpoint: Checkpoint = never_stop

    def piece(self, first: int, last: int) -> ScanRequest:
        """The same for queries first .. last - 1."""
        low, high = int(self.starts[first]), int(self.starts[last])
        return ScanRequest(
            shards=self.shards,
            queries=self.queries[first:last],
            lists=self.lists[low:high],
            starts=self.starts[first : last + 1] - low,
            k=self.k,
            filters=self.filters,
            filter_of=self.filter_of[first:last],
            checkpoint=self.checkpoint,
        )


@dataclass(frozen=True)
class Candidates:
    """Nearest rows per query by (distance, row id).

    Attributes:
        distances: float32 [n, k]; zero at and past counts.
        rows: int64 [n, k].
        counts: int32 [n].
        codes_scanned: codes read for it.
    """

    distances: F32
    rows: I64
    counts: I32
    codes_scanned: int = field(default=0)


class Backend(Protocol):
    """Scans PQ codes. ``scan`` is called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    def load(self, shard_set: ShardSet) -> None:
        """Puts the shards where the scan reads them. Idempotent; what several
        sets share is held once and let go with the last of them."""

    def scan(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        """Scans the lists of every query in the request's shards."""

    def close(self) -> None:
        """Frees the device. No scan may be under way."""


def merge_candidates(parts: Sequence[Candidates], k: int) -> Candidates:
    """Exact merge of several shards' candidates by (distance, row id)."""
    if len(parts) == 1 and parts[0].distances.shape[1] == k:
        return parts[0]
    distances = np.concatenate([p.distances for p in parts], axis=1)
    rows = np.concatenate([p.rows for p in parts], axis=1)
    invalid = np.concatenate(
        [np.arange(p.distances.shape[1])[None, :] >= p.counts[:, None] for p in parts], axis=1
    )
    order = np.lexsort((rows, distances, invalid), axis=-1)[:, :k]
    counts = np.minimum(sum(p.counts.astype(np.int32) for p in parts), k).astype(np.int32)
    distances = np.take_along_axis(distances, order, axis=1)
    rows = np.take_along_axis(rows, order, axis=1)
    return blank_tail(distances, rows, counts, sum(p.codes_scanned for p in parts))


def blank_tail(distances: F32, rows: I64, counts: I32, codes_scanned: int) -> Candidates:
    """Zeroes what lies past counts, so that equal answers are equal bytes."""
    tail = np.arange(distances.shape[1])[None, :] >= counts[:, None]
    distances[tail] = 0
    rows[tail] = 0
    return Candidates(distances, rows, counts, codes_scanned)
