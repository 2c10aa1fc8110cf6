"""Loaded shards: the rows of all segments of a shard merged into one CSR.

Merged rows are shared between generations that consist of the same files, so
a generation that only adds tombstones loads almost for free.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData, InvalidInput
from ragschema.storage.manifest import FileRef, IndexRef, Manifest
from ragschema.types import I64, U8, Metric, SnapshotId
from retrieval_node.shard_files import (
    IvfIndex,
    ShardPart,
    read_index,
    read_part,
    read_tombstones,
)


@dataclass(frozen=True, eq=False)
class ShardRows:
    """All rows of one shard; deleted ones included.

    Attributes:
        ids: int64 [n], grouped by list, ascending within a list.
        list_offsets: int64 [nlist + 1]; [0, n] when exact.
        codes: uint8 [n, m]; [n, 0] when exact.
        vectors: float32 [n, dim] (exact), float16 (refined), None.
        sorted_ids: int64 [n], ids ascending.
        order: int64 [n], position of each sorted id.
    """

    ids: I64
    list_offsets: I64
    codes: U8
    vectors: NDArray[Any] | None
    sorted_ids: I64
    order: I64

    @property
    def resident_bytes(self) -> int:
        arrays = (self.ids, self.list_offsets, self.codes, self.sorted_ids, self.order)
        stored = 0 if self.vectors is None else self.vectors.nbytes
        return stored + sum(a.nbytes for a in arrays)

    def positions(self, rows: I64) -> I64:
        """Where rows are; -1 for rows that other shards hold."""
        if not len(self.sorted_ids):
            return np.full(rows.shape, -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.sorted_ids, rows), len(self.sorted_ids) - 1)
        return np.where(self.sorted_ids[at] == rows, self.order[at], -1)


@dataclass(frozen=True, eq=False)
class LoadedShard:
    """One shard of one generation.

    Attributes:
        alive: uint8 [n], 0 for deleted rows; empty when none is.
        live_rows: rows that are not deleted.
    """

    rows: ShardRows
    alive: U8
    live_rows: int


@dataclass(frozen=True, eq=False)
class ShardSet:
    """Loaded shards of one snapshot.

    Attributes:
        index: None for exact collections.
        refine: whether shards hold float16 vectors.
        live: uint8 [ceil(next_row_id / 8)], bitmap of rows that are not
            deleted; None when no row is.
        shards: by shard number.
    """

    snapshot: SnapshotId
    metric: Metric
    dim: int
    num_shards: int
    next_row_id: int
    index: IvfIndex | None
    refine: bool
    live: U8 | None
    shards: Mapping[int, LoadedShard]

    @property
    def live_rows(self) -> int:
        return sum(shard.live_rows for shard in self.shards.values())

    @property
    def resident_bytes(self) -> int:
        tables = 0
        if self.index is not None:
            tables = self.index.centroids.nbytes + 2 * self.index.codebooks.nbytes
        return tables + sum(s.rows.resident_bytes + s.alive.nbytes for s in self.shards.values())


def make_rows(ids: I64, offsets: I64, codes: U8, vectors: NDArray[Any] | None) -> ShardRows:
    """Adds the way from row ids to positions."""
    order = np.argsort(ids, kind="stable").astype(np.int64)
    return ShardRows(ids, offsets, codes, vectors, ids[order], order)


def merge_parts(parts: Sequence[ShardPart], nlist: int | None) -> ShardRows:
    """One CSR out of the parts of ascending segments; keeps ids ascending per list."""
    lists = 1 if nlist is None else nlist
    if not parts:
        raise AssertionError("a shard has at least one part")
    offsets = [
        np.array([0, len(p.ids)], dtype=np.int64) if p.list_offsets is None else p.list_offsets
        for p in parts
    ]
    codes = [np.zeros((len(p.ids), 0), dtype=np.uint8) if p.codes is None else p.codes
             for p in parts]  # fmt: skip
    if len(parts) == 1:
        return make_rows(parts[0].ids, offsets[0], codes[0], parts[0].vectors)
    list_of_row = np.concatenate([np.repeat(np.arange(lists), np.diff(o)) for o in offsets])
    order = np.argsort(list_of_row, kind="stable")
    merged = np.zeros(lists + 1, dtype=np.int64)
    np.cumsum(sum(np.diff(o) for o in offsets), out=merged[1:])
    vectors = [p.vectors for p in parts if p.vectors is not None]
    return make_rows(
        np.concatenate([p.ids for p in parts])[order],
        merged,
        np.concatenate(codes)[order],
        np.concatenate(vectors)[order] if vectors else None,
    )


class ShardReader:
    """Opens snapshots; remembers, weakly, what other loaded snapshots share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: weakref.WeakValueDictionary[tuple[object, ...], ShardRows] = (
            weakref.WeakValueDictionary()
        )
        self._indexes: weakref.WeakValueDictionary[tuple[Path, IndexRef], IvfIndex] = (
            weakref.WeakValueDictionary()
        )

    def open(self, directory: Path, manifest: Manifest, shards: Sequence[int]) -> ShardSet:
        """Loads and verifies the shards; nothing is returned unless all of it is sound.

        Raises:
            CorruptData: naming the file at fault.
            InvalidInput: a shard number the collection does not have.
        """
        for shard in shards:
            if not 0 <= shard < manifest.num_shards:
                raise InvalidInput(
                    f"shard {shard} is not in 0..{manifest.num_shards - 1}", field="shards"
                )
        # One reader at a time: two would read and verify the same files twice.
        with self._lock:
            index = self._index(directory, manifest)
            dead = read_tombstones(directory, manifest.tombstones, manifest.next_row_id)
            loaded = {
                shard: _with_tombstones(self._merged(directory, manifest, shard), dead)
                for shard in sorted(set(shards))
            }
        return ShardSet(
            snapshot=SnapshotId(manifest.collection, manifest.generation),
            metric=manifest.metric,
            dim=manifest.dim,
            num_shards=manifest.num_shards,
            next_row_id=manifest.next_row_id,
            index=index,
            refine=manifest.index is not None and manifest.index.refine_factor is not None,
            live=_live_bitmap(dead, manifest.next_row_id),
            shards=loaded,
        )

    def _index(self, directory: Path, manifest: Manifest) -> IvfIndex | None:
        if manifest.index is None:
            return None
        key = (directory, manifest.index)
        found = self._indexes.get(key)
        if found is None:
            found = read_index(directory, manifest.index, manifest.dim)
            self._indexes[key] = found
        return found

    def _merged(self, directory: Path, manifest: Manifest, shard: int) -> ShardRows:
        refs: list[FileRef] = []
        for segment in manifest.segments:
            if len(segment.shards) != manifest.num_shards:
                raise CorruptData(
                    f"{directory}: segment {segment.id} has {len(segment.shards)} shard files,"
                    f" expected {manifest.num_shards}",
                    field=str(directory),
                )
            refs.append(segment.shards[shard])
        key = (directory, manifest.index, manifest.dim, *refs)
        found = self._rows.get(key)
        if found is None:
            found = self._read_merged(directory, manifest, refs)
            self._rows[key] = found
        return found

    def _read_merged(
        self, directory: Path, manifest: Manifest, refs: Sequence[FileRef]
    ) -> ShardRows:
        index = manifest.index
        if not refs:
            lists, m = (1, 0) if index is None else (index.nlist, index.m)
            vectors = np.zeros((0, manifest.dim), np.float32 if index is None else np.float16)
            return make_rows(
                np.zeros(0, np.int64), np.zeros(lists + 1, np.int64), np.zeros((0, m), np.uint8),
                vectors,
            )  # fmt: skip
        pairs = sorted(
            zip(manifest.segments, refs, strict=True), key=lambda pair: pair[0].row_start
        )
        parts = [read_part(directory, ref, segment, manifest) for segment, ref in pairs]
        return merge_parts(parts, None if index is None else index.nlist)


def _with_tombstones(rows: ShardRows, dead: I64) -> LoadedShard:
    gone = rows.positions(dead)
    gone = gone[gone >= 0]
    if not len(gone):
        return LoadedShard(rows, np.zeros(0, dtype=np.uint8), len(rows.ids))
    alive = np.ones(len(rows.ids), dtype=np.uint8)
    alive[gone] = 0
    return LoadedShard(rows, alive, len(rows.ids) - len(gone))


def _live_bitmap(dead: I64, next_row_id: int) -> U8 | None:
    if not len(dead):
        return None
    bits = np.ones(next_row_id, dtype=np.uint8)
    bits[dead] = 0
    return np.packbits(bits, bitorder="little")
