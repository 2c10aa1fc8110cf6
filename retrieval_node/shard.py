"""Loaded shards of a snapshot, segment by segment.

Segments are shared between generations that consist of the same files: one
that only adds rows or tombstones loads little more than those.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragschema.errors import CorruptData, InvalidInput
from ragschema.storage.blockfile import VERIFY_UP_TO_BYTES
from ragschema.storage.manifest import FileRef, Manifest, SegmentRef
from ragschema.types import I64, U8, Metric, SnapshotId
from retrieval_node.segment import Memory, SegmentFile, SegmentRows, open_segment
from retrieval_node.shard_files import IvfIndex, read_index, read_tombstones

__all__ = ["LoadedShard", "Memory", "SegmentRows", "ShardReader", "ShardSet"]


@dataclass(frozen=True, eq=False)
class LoadedShard:
    """One shard of one generation.

    Attributes:
        segments: by ascending row_start.
        live_rows: rows that are not deleted.
    """

    segments: tuple[SegmentRows, ...]
    live_rows: int


@dataclass(frozen=True, eq=False)
class ShardSet:
    """Loaded shards of one snapshot.

    Attributes:
        dim: of queries, before any rotation.
        index: None for exact collections.
        refine: whether coded segments hold vectors to rescore with.
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
        """Bytes of all arrays, mapped or copied; see ``SegmentRows.resident_bytes``."""
        total = 0 if self.live is None else self.live.nbytes
        if self.index is not None:
            total += self.index.centroids.nbytes + self.index.codebooks.nbytes
        return total + sum(
            segment.resident_bytes for shard in self.shards.values() for segment in shard.segments
        )


class ShardReader:
    """Opens snapshots; remembers, weakly, what other loaded snapshots share.

    Args:
        memory: "map" the files, or copy what scans read into "huge" pages.
        verify_up_to_bytes: shard files up to this size are verified whole when
            they are opened, larger ones as they are touched.
    """

    def __init__(
        self, memory: Memory = "map", verify_up_to_bytes: int = VERIFY_UP_TO_BYTES
    ) -> None:
        if memory not in ("map", "huge"):
            raise InvalidInput(
                f"{memory!r} is not a way to hold shards", field="memory", hint="use map or huge"
            )
        self._memory = memory
        self._verify_up_to_bytes = verify_up_to_bytes
        self._lock = threading.Lock()
        self._segments: weakref.WeakValueDictionary[tuple[object, ...], SegmentRows] = (
            weakref.WeakValueDictionary()
        )
        self._indexes: weakref.WeakValueDictionary[tuple[object, ...], IvfIndex] = (
            weakref.WeakValueDictionary()
        )

    def open(self, directory: Path, manifest: Manifest, shards: Sequence[int]) -> ShardSet:
        """Opens the shards; nothing is returned unless all of them can be.

        Raises:
            CorruptData: naming the file at fault.
            InvalidInput: a shard number the collection does not have.
        """
        for shard in shards:
            if not 0 <= shard < manifest.num_shards:
                raise InvalidInput(
                    f"shard {shard} is not in 0..{manifest.num_shards - 1}", field="shards"
                )
        # One reader at a time: two would open and verify the same files twice.
        with self._lock:
            index = self._index(directory, manifest)
            dead = read_tombstones(directory, manifest.tombstones, manifest.next_row_id)
            loaded = {
                shard: self._shard(directory, manifest, shard, index, dead)
                for shard in sorted(set(shards))
            }
        return ShardSet(
            snapshot=SnapshotId(manifest.collection, manifest.generation),
            metric=manifest.metric,
            dim=manifest.dim,
            num_shards=manifest.num_shards,
            next_row_id=manifest.next_row_id,
            index=index,
            refine=_has_vectors(manifest, loaded),
            live=_live_bitmap(dead, manifest.next_row_id),
            shards=loaded,
        )

    def _index(self, directory: Path, manifest: Manifest) -> IvfIndex | None:
        ref = manifest.index
        if ref is None:
            return None
        # Not the whole reference: tuning changes the curve, not the file.
        key = (directory, ref.file, ref.nlist, ref.m, ref.residual, ref.rotated)
        found = self._indexes.get(key)
        if found is None:
            found = read_index(directory, ref, manifest.metric, manifest.dim)
            self._indexes[key] = found
        return found

    def _shard(
        self, directory: Path, manifest: Manifest, shard: int, index: IvfIndex | None, dead: I64
    ) -> LoadedShard:
        segments = []
        gone = 0
        for ref in sorted(manifest.segments, key=lambda s: s.row_start):
            if len(ref.shards) != manifest.num_shards:
                raise CorruptData(
                    f"{directory}: segment {ref.id} has {len(ref.shards)} shard files,"
                    f" expected {manifest.num_shards}",
                    field=str(directory),
                )
            segment = self._segment(directory, manifest, ref, ref.shards[shard], index)
            segments.append(segment)
            gone += _dead_rows(segment, ref, dead, manifest.num_shards)
        return LoadedShard(tuple(segments), sum(len(s.ids) for s in segments) - gone)

    def _segment(
        self, directory: Path, manifest: Manifest, segment: SegmentRef, ref: FileRef,
        index: IvfIndex | None,
    ) -> SegmentRows:  # fmt: skip
        refines = manifest.index is not None and manifest.index.refine_factor is not None
        wanted = SegmentFile.of(ref, segment, manifest.metric, manifest.dim, index, refines)
        # The index too: a native segment refers to the one it was opened with.
        key = (directory, wanted, manifest.index and manifest.index.file, id(index))
        found = self._segments.get(key)
        if found is None:
            found = open_segment(directory, wanted, index, self._memory, self._verify_up_to_bytes)
            self._segments[key] = found
        return found


def _dead_rows(segment: SegmentRows, ref: SegmentRef, dead: I64, num_shards: int) -> int:
    """How many of a segment's deleted rows lie in this shard."""
    low, high = np.searchsorted(dead, (ref.row_start, ref.row_start + ref.row_count))
    if num_shards == 1 or low == high:
        return int(high - low)
    mask = np.zeros(ref.row_count, dtype=np.bool_)
    mask[dead[low:high] - ref.row_start] = True
    return int(np.count_nonzero(mask[segment.row_ids() - ref.row_start]))


def _has_vectors(manifest: Manifest, shards: Mapping[int, LoadedShard]) -> bool:
    if manifest.index is None:
        return False
    coded = [s for shard in shards.values() for s in shard.segments if not s.exact]
    if not coded:
        return manifest.index.refine_factor is not None
    return all(segment.vectors is not None for segment in coded)


def _live_bitmap(dead: I64, next_row_id: int) -> U8 | None:
    if not len(dead):
        return None
    bits = np.ones(next_row_id, dtype=np.uint8)
    bits[dead] = 0
    return np.packbits(bits, bitorder="little")
