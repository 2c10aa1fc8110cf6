"""What a scan backend is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ragschema.types import F32, I32, I64, U8
from retrieval_node.cancel import Cancellation
from retrieval_node.shard import ShardSet


@dataclass(frozen=True, eq=False)
class ScanRequest:
    """The PQ scan of one batch; validated before it gets here.

    Attributes:
        shards: loaded shards to scan, their segments with codes only.
        queries: float32 [n, dim], C-contiguous, rotated as the index wants them.
        refine_queries: float32 [n, input dim], as the caller sent them; the same
            array as ``queries`` where the index does not rotate.
        lists: int32 [n, nprobe], C-contiguous, padded with -1.
        k: rows wanted per query.
        refine_k: None: the k nearest by PQ distance. Else the refine_k nearest by
            PQ distance are rescored with the stored vectors, and the best k wanted.
        live: uint8 bitmap over row ids of rows that are not deleted; None: none is.
        filters: uint8 [f, bytes], bitmaps over row ids; None when nothing is filtered.
        filter_of: int32 [n], -1 for none; None when nothing is filtered.
        cancel: asked between pieces of work; None: nothing stops the search.
    """

    shards: tuple[int, ...]
    queries: F32
    refine_queries: F32
    lists: I32
    k: int
    refine_k: int | None = None
    live: U8 | None = None
    filters: U8 | None = None
    filter_of: I32 | None = None
    cancel: Cancellation | None = None

    @property
    def candidates(self) -> int:
        """Rows wanted of the scan itself, before any refinement."""
        return self.k if self.refine_k is None else self.refine_k

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when nobody waits any more."""
        if self.cancel is not None:
            self.cancel.check()

    def piece(self, first: int, last: int) -> ScanRequest:
        """The same for queries first .. last - 1."""
        some = slice(first, last)
        return replace(
            self,
            queries=self.queries[some],
            refine_queries=self.refine_queries[some],
            lists=self.lists[some],
            filter_of=None if self.filter_of is None else self.filter_of[some],
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Nearest rows per query by (distance, row id).

    Attributes:
        distances: float32 [n, k]; zero at and past counts.
        rows: int64 [n, k].
        counts: int32 [n].
        codes_scanned: codes, or vectors, read for it.
        survivors: codes that passed a backend's filter and were computed in full.
    """

    distances: F32
    rows: I64
    counts: I32
    codes_scanned: int = 0
    survivors: int = 0


class Backend(Protocol):
    """Scans PQ codes. ``search`` is called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def pool(self) -> Any | None:
        """native.Pool for exact searches beside the scan; None: the calling thread alone."""

    def load(self, shard_set: ShardSet) -> None:
        """Puts the shards where the scan reads them. Idempotent; what several
        sets share is held once and let go with the last of them."""

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        """Scans the lists of every query and refines; [n, k] of the request.

        A backend that cannot refine takes ``request.candidates`` rows and hands
        them to ``refine.refine``.

        Raises:
            Cancelled, DeadlineExceeded: ``request.cancel`` asked for it.
            CorruptData: stored bytes are not what was written.
        """

    def close(self) -> None:
        """Frees the device. No search may be under way."""


def no_candidates(n: int, k: int) -> Candidates:
    """The answer in which nothing was found."""
    return Candidates(
        np.zeros((n, k), np.float32), np.zeros((n, k), np.int64), np.zeros(n, np.int32)
    )


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
    counts = np.minimum(sum(p.counts for p in parts), k).astype(np.int32)
    return replace(
        blank_tail(
            np.take_along_axis(distances, order, axis=1),
            np.take_along_axis(rows, order, axis=1),
            counts,
            sum(p.codes_scanned for p in parts),
        ),
        survivors=sum(p.survivors for p in parts),
    )


def blank_tail(distances: F32, rows: I64, counts: I32, codes_scanned: int) -> Candidates:
    """Zeroes what lies past counts, so that equal answers are equal bytes."""
    tail = np.arange(distances.shape[1])[None, :] >= counts[:, None]
    distances[tail] = 0
    rows[tail] = 0
    return Candidates(distances, rows, counts, codes_scanned)
