"""Rows that were deleted, as a file of the collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData
from ragschema.storage.blockfile import read_blockfile, write_blockfile
from ragschema.storage.manifest import FileRef, Manifest, file_ref, sync_directory, verify_file
from ragschema.types import I64, U8

KIND = "tombstones"

Mask = NDArray[np.bool_]


def write_tombstones(directory: Path, generation: int, rows: I64) -> FileRef | None:
    """Writes ``tombstones/tomb-<generation>.rag``; None when no row is deleted.

    Args:
        rows: int64 ascending row ids, all of them, not only the new ones.
    """
    if len(rows) == 0:
        return None
    folder = directory / "tombstones"
    folder.mkdir(exist_ok=True)
    path = folder / f"tomb-{generation:06d}.rag"
    write_blockfile(path, KIND, {"generation": generation}, {"rows": rows.astype(np.int64)})
    sync_directory(folder)
    return file_ref(directory, path)


def read_tombstones(directory: Path, manifest: Manifest) -> I64:
    """The deleted rows, int64 ascending.

    Raises:
        CorruptData: the file is not what was written, naming it.
    """
    if manifest.tombstones is None:
        return np.empty(0, dtype=np.int64)
    path = verify_file(directory, manifest.tombstones)
    rows = read_blockfile(path, KIND).arrays.get("rows")
    if rows is None or rows.ndim != 1 or rows.dtype != np.int64:
        raise CorruptData(f"{path}: has no list of rows", field=str(path))
    ascending = bool((rows[1:] > rows[:-1]).all())
    inside = not len(rows) or (rows[0] >= 0 and rows[-1] < manifest.next_row_id)
    if not (ascending and inside):
        raise CorruptData(f"{path}: rows are not ascending row ids", field=str(path))
    return rows


def live_bitmap(next_row_id: int, deleted: I64) -> U8:
    """uint8 [ceil(next_row_id / 8)]: bit ``i & 7`` of byte ``i >> 3`` set when row i lives."""
    return np.packbits(live_mask(next_row_id, deleted), bitorder="little")


def live_mask(next_row_id: int, deleted: I64) -> Mask:
    """bool [next_row_id]: whether a row lives."""
    mask = np.ones(next_row_id, dtype=np.bool_)
    mask[deleted] = False
    return mask
