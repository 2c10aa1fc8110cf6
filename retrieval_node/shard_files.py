"""Reading the files of a collection, trusting nothing that is not checked.

A checksum proves that bytes are what was written, not that they make sense
together; kernels index with offsets and ids, so both are checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData
from ragschema.storage.blockfile import BlockFile, read_blockfile
from ragschema.storage.manifest import FileRef, IndexRef, Manifest, SegmentRef, verify_file
from ragschema.types import F32, I64, U8
from retrieval_node.fixedpoint import CODES, MAX_ABS

INDEX_KIND = "ivfpq-index"
SHARD_KIND = "shard"
TOMBSTONES_KIND = "tombstones"


@dataclass(frozen=True, eq=False)
class IvfIndex:
    """A trained index.

    Attributes:
        centroids: float32 [nlist, dim].
        codebooks: float32 [m, 256, dim / m].
        codebooks_t: float32 [m, dim / m, 256], for the kernels.
    """

    centroids: F32
    codebooks: F32
    codebooks_t: F32

    @property
    def nlist(self) -> int:
        return int(self.centroids.shape[0])

    @property
    def m(self) -> int:
        return int(self.codebooks.shape[0])


@dataclass(frozen=True, eq=False)
class ShardPart:
    """One shard's rows of one segment, as stored.

    Attributes:
        ids: int64 [n].
        list_offsets: int64 [nlist + 1]; None when exact.
        codes: uint8 [n, m]; None when exact.
        vectors: float32 [n, dim] when exact, float16 when refined, else None.
    """

    ids: I64
    list_offsets: I64 | None
    codes: U8 | None
    vectors: NDArray[Any] | None


def _bad(path: Path, what: str) -> CorruptData:
    return CorruptData(
        f"{path}: {what}",
        field=str(path),
        hint="restore the file from a backup or ingest the collection again",
    )


def _array(file: BlockFile, name: str, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """An array of the file; None in ``shape`` stands for any length."""
    found = file.arrays.get(name)
    if found is None:
        raise _bad(file.path, f"has no array {name}")
    fits = len(found.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found.shape, strict=True)
    )
    if found.dtype != np.dtype(dtype) or not fits:
        raise _bad(
            file.path,
            f"array {name} is {found.dtype}{list(found.shape)}, expected {dtype}{list(shape)}",
        )
    # The kernels have one signature: native byte order, aligned, writable.
    return np.require(found, dtype=np.dtype(dtype).newbyteorder("="), requirements=["C", "A", "W"])


def _finite(file: BlockFile, name: str, values: NDArray[Any]) -> None:
    if values.size and not float(np.abs(values).max()) <= MAX_ABS:
        raise _bad(file.path, f"array {name} holds a component that is no ordinary number")


def read_index(directory: Path, ref: IndexRef, dim: int) -> IvfIndex:
    """Centroids and codebooks; CorruptData names the file that is wrong."""
    file = read_blockfile(verify_file(directory, ref.file), INDEX_KIND)
    if dim % ref.m:
        raise _bad(file.path, f"m {ref.m} does not divide dimension {dim}")
    return index_from_file(file, ref.nlist, ref.m, dim)


def index_from_file(file: BlockFile, nlist: int | None, m: int | None, dim: int) -> IvfIndex:
    """Checks an opened index file; None accepts any count."""
    centroids = _array(file, "centroids", "float32", (nlist, dim))
    codebooks = _array(file, "codebooks", "float32", (m, CODES, None))
    if codebooks.shape[0] * codebooks.shape[2] != dim or not len(centroids):
        raise _bad(file.path, f"its codebooks do not make up dimension {dim}")
    _finite(file, "centroids", centroids)
    _finite(file, "codebooks", codebooks)
    transposed = np.ascontiguousarray(codebooks.transpose(0, 2, 1))
    return IvfIndex(centroids, codebooks, transposed)


def read_part(directory: Path, ref: FileRef, segment: SegmentRef, manifest: Manifest) -> ShardPart:
    """One shard file, verified; CorruptData names the file that is wrong."""
    file = read_blockfile(verify_file(directory, ref), SHARD_KIND)
    ids = _array(file, "ids", "int64", (None,))
    _check_ids(file, ids, segment)
    n, dim, index = len(ids), manifest.dim, manifest.index
    if index is None:
        _check_ascending(file, ids, np.array([0, n]))
        vectors = _array(file, "vectors", "float32", (n, dim))
        _finite(file, "vectors", vectors)
        return ShardPart(ids, None, None, vectors)
    offsets = _array(file, "list_offsets", "int64", (index.nlist + 1,))
    if offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        raise _bad(file.path, f"list_offsets do not ascend from 0 to {n}")
    _check_ascending(file, ids, offsets)
    codes = _array(file, "codes", "uint8", (n, index.m))
    refined: NDArray[Any] | None = None
    if index.refine_factor is not None:
        refined = _array(file, "vectors", "float16", (n, dim))
        _finite(file, "vectors", refined)
    return ShardPart(ids, offsets, codes, refined)


def _check_ids(file: BlockFile, ids: I64, segment: SegmentRef) -> None:
    low, high = segment.row_start, segment.row_start + segment.row_count
    if len(ids) and not (int(ids.min()) >= low and int(ids.max()) < high):
        raise _bad(file.path, f"holds row ids outside {low}..{high - 1}")


def _check_ascending(file: BlockFile, ids: I64, offsets: I64) -> None:
    """Ids must ascend strictly inside each list."""
    falls = np.flatnonzero(np.diff(ids) <= 0) + 1
    if len(falls) and not np.isin(falls, offsets).all():
        raise _bad(file.path, "row ids do not ascend within a list")


def read_tombstones(directory: Path, ref: FileRef | None, next_row_id: int) -> I64:
    """Deleted row ids, ascending; empty when there are none."""
    if ref is None:
        return np.zeros(0, dtype=np.int64)
    file = read_blockfile(verify_file(directory, ref), TOMBSTONES_KIND)
    rows = _array(file, "rows", "int64", (None,))
    ascends = (np.diff(rows) > 0).all()
    if len(rows) and not (ascends and rows[0] >= 0 and rows[-1] < next_row_id):
        raise _bad(file.path, f"rows do not ascend within 0..{next_row_id - 1}")
    return rows
