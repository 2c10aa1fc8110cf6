"""A collection's live rows as a faiss IndexIVFPQ file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragschema.errors import Conflict, IncompatibleRequest
from ragschema.storage.manifest import read_manifest, sync_directory
from ragschema.types import I64, U8
from retrieval_node.encode import Encoder
from retrieval_node.index_spec import ExportSpec
from retrieval_node.interop.faiss_build import add_list, empty_index, with_rotation
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import ShardReader, ShardSet
from retrieval_node.shard_files import IvfIndex

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

# faiss adds to its classes when it is imported; its type stubs know nothing of that.
_faiss: Any = faiss


@dataclass(frozen=True)
class ExportedIndex:
    """What was written.

    Attributes:
        rows: live rows; their ids are the collection's row ids.
        encoded: how many of them were encoded for it, being kept as vectors only.
    """

    file: str
    rows: int
    encoded: int


def export_index(spec: ExportSpec, progress: Progress) -> ExportedIndex:
    """Writes the file whole or not at all. faiss holds all of it in memory meanwhile.

    Raises:
        NotFound: there is no such collection.
        Conflict: the file exists.
        IncompatibleRequest: the collection is exact: there are no codes.
        CorruptData: naming a file of the collection that is damaged.
        OSError: the file cannot be written.
    """
    path = Path(spec.file)
    if path.exists():
        raise Conflict(f"{path} exists", field="file", hint="name another file, or remove it")
    directory = Path(spec.collection_dir)
    manifest = read_manifest(directory)
    if manifest.index is None:
        raise IncompatibleRequest(
            f"collection {manifest.collection!r} keeps exact vectors: it has no IVF-PQ index",
            field="collection",
            hint="it gets one once it is large enough",
        )
    shard_set = ShardReader().open(directory, manifest, range(manifest.num_shards))
    assert shard_set.index is not None, "the manifest has one"
    built = empty_index(shard_set.index)
    built.nprobe = manifest.index.nprobe
    encoded = _fill(built, shard_set, progress)
    _write(with_rotation(built, shard_set.index), path)
    return ExportedIndex(str(path), int(built.ntotal), encoded)


def _fill(built: Any, shard_set: ShardSet, progress: Progress) -> int:
    """Adds every live row, by list then row id; returns how many had to be encoded."""
    assert shard_set.index is not None, "looked at before"
    parts = [
        (number, segment)
        for number, shard in shard_set.shards.items()
        for segment in shard.segments
    ]
    rows, lists, codes = [], [], []
    encoded = done = 0
    total = sum(len(segment.ids) for _, segment in parts)
    for _, segment in parts:
        ids = segment.row_ids()
        alive = _alive(ids, shard_set.live)
        of_list, of_code = _coded(segment, shard_set.index)
        rows.append(ids[alive])
        lists.append(of_list[alive])
        codes.append(of_code[alive])
        encoded += int(alive.sum()) if segment.exact else 0
        done += len(ids)
        progress("read", done, total)
    _add_all(built, np.concatenate(rows), np.concatenate(lists), np.concatenate(codes))
    return encoded


def _add_all(built: Any, rows: I64, lists: I64, codes: U8) -> None:
    order = np.lexsort((rows, lists))
    bounds = np.searchsorted(lists[order], np.arange(built.nlist + 1))
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        at = order[bounds[number] : bounds[number + 1]]
        add_list(built, number, rows[at], codes[at])


def _alive(ids: I64, live: U8 | None) -> NDArray[np.bool_]:
    if live is None:
        return np.ones(len(ids), dtype=np.bool_)
    return np.asarray(live[ids >> 3] >> (ids & 7).astype(np.uint8) & 1, dtype=np.bool_)


def _coded(segment: SegmentRows, index: IvfIndex) -> tuple[I64, U8]:
    """List and code of each row of a segment, in the order of its ids."""
    if segment.exact:
        segment.file.ensure_array("vectors")
        assert segment.vectors is not None, "exact segments hold vectors"
        return Encoder(index)(np.ascontiguousarray(segment.vectors, dtype=np.float32))
    sizes = np.diff(segment.list_offsets)
    return np.repeat(np.arange(index.nlist), sizes), segment.row_codes()


def _write(index: Any, path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        try:
            _faiss.write_index(index, str(draft))
        except RuntimeError as error:
            raise OSError(
                28 if "No space" in str(error) else 5, str(error)[-200:], str(path)
            ) from error
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
