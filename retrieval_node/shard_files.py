"""Reading index files and tombstones, trusting nothing that is not checked.

A checksum proves that bytes are what was written, not that they make sense
together; kernels index with them, so shapes and values are checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.storage.blockfile import BlockFile, read_blockfile
from ragschema.storage.blockhead import corrupt
from ragschema.storage.manifest import FileRef, IndexRef, verify_file
from ragschema.types import F32, I64, Metric
from retrieval_node.fixedpoint import CODES, MAX_ABS
from retrieval_node.native.loader import native

INDEX_KIND = "ivfpq-index"
SHARD_KIND = "shard"
TOMBSTONES_KIND = "tombstones"


@dataclass(frozen=True, eq=False)
class IvfIndex:
    """A trained index.

    Attributes:
        metric: of the collection.
        centroids: float32 [nlist, dim], in the rotated space.
        codebooks: float32 [m, 256, dim / m].
        shift: float32 [dim]; see ``bias``.
        residual: codes are of a vector minus its list's centroid.
        rotation: float32 [dim, input dim] or None.
        offset: float32 [dim], added after the rotation, or None.
        handle: native.Index; None without the extension.
    """

    metric: Metric
    centroids: F32
    codebooks: F32
    shift: F32
    residual: bool = True
    rotation: F32 | None = None
    offset: F32 | None = None
    handle: Any | None = None

    @property
    def nlist(self) -> int:
        return int(self.centroids.shape[0])

    @property
    def m(self) -> int:
        return int(self.codebooks.shape[0])

    @property
    def dim(self) -> int:
        """Of the rotated space."""
        return int(self.centroids.shape[1])

    @property
    def input_dim(self) -> int:
        """Of vectors and queries as users give them."""
        return self.dim if self.rotation is None else int(self.rotation.shape[1])

    def rotate(self, queries: F32) -> F32:
        """float32 [n, input dim] to [n, dim]; the queries themselves without a rotation.

        Summed in float64: a query's bits do not depend on its batch.
        """
        if self.rotation is None and self.offset is None:
            return queries
        turned = queries.astype(np.float64)
        if self.rotation is not None:
            turned = turned @ self.rotation.T.astype(np.float64)
        if self.offset is not None:
            turned += self.offset
        return turned.astype(np.float32)


def make_index(
    metric: Metric,
    centroids: F32,
    codebooks: F32,
    *,
    residual: bool = True,
    rotation: F32 | None = None,
    offset: F32 | None = None,
    shift: F32 | None = None,
) -> IvfIndex:
    """An index of trained arrays; see ``IvfIndex``.

    Args:
        shift: None: the mean of the centroids for residual codes, else zero.
    """
    centroids = np.ascontiguousarray(centroids, dtype=np.float32)
    codebooks = np.ascontiguousarray(codebooks, dtype=np.float32)
    if shift is None:
        mean = centroids.mean(axis=0, dtype=np.float64) if residual else np.zeros(1)
        shift = np.broadcast_to(mean, centroids.shape[1:]).astype(np.float32)
    module = native()
    handle = None
    if module is not None:
        name = "l2" if metric is Metric.L2 else "ip"
        handle = module.Index(name, centroids, codebooks, shift, residual)
    return IvfIndex(metric, centroids, codebooks, shift, residual, rotation, offset, handle)


def check_array(
    path: Path, arrays: Mapping[str, NDArray[Any]], name: str, dtypes: tuple[str, ...],
    shape: tuple[int | None, ...],
) -> NDArray[Any]:  # fmt: skip
    """An array of a file; None in ``shape`` stands for any length.

    Raises:
        CorruptData: it is missing or of another shape or dtype.
    """
    found = arrays.get(name)
    if found is None:
        raise corrupt(path, f"has no array {name}")
    fits = len(found.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found.shape, strict=True)
    )
    if found.dtype.name not in dtypes or not fits:
        raise corrupt(
            path,
            f"array {name} is {found.dtype}{list(found.shape)},"
            f" expected {' or '.join(dtypes)}{list(shape)}",
        )
    return found


def check_finite(path: Path, name: str, values: NDArray[Any]) -> None:
    """Raises CorruptData where a component is NaN, infinite or absurd."""
    if values.size and not float(np.abs(values).max()) <= MAX_ABS:
        raise corrupt(path, f"array {name} holds a component that is no ordinary number")


def read_index(directory: Path, ref: IndexRef, metric: Metric, dim: int) -> IvfIndex:
    """A trained index, verified whole.

    Args:
        dim: of the collection's vectors.

    Raises:
        CorruptData: naming the file that is wrong.
    """
    file = read_blockfile(verify_file(directory, ref.file), INDEX_KIND)
    index = index_from_file(file, metric, dim, ref.residual)
    found = (index.nlist, index.m, index.rotation is not None)
    if found != (ref.nlist, ref.m, ref.rotated):
        raise corrupt(file.path, f"its lists, code bytes and rotation are {found}, not the index's")
    return index


def index_from_file(file: BlockFile, metric: Metric, dim: int, residual: bool) -> IvfIndex:
    """Checks an opened index file.

    Raises:
        CorruptData: arrays do not fit together.
    """
    path, arrays = file.path, file.arrays
    centroids = check_array(path, arrays, "centroids", ("float32",), (None, None))
    inner = centroids.shape[1]
    if not len(centroids) or not inner:
        raise corrupt(path, "has no centroids")
    codebooks = check_array(path, arrays, "codebooks", ("float32",), (None, CODES, None))
    if codebooks.shape[0] * codebooks.shape[2] != inner:
        raise corrupt(path, f"its codebooks do not make up dimension {inner}")
    shift = check_array(path, arrays, "shift", ("float32",), (inner,))
    rotation = offset = None
    if "rotation" in arrays:
        rotation = check_array(path, arrays, "rotation", ("float32",), (inner, dim))
    elif inner != dim:
        raise corrupt(path, f"is of dimension {inner}, expected {dim}")
    if "offset" in arrays:
        offset = check_array(path, arrays, "offset", ("float32",), (inner,))
    for name in arrays.keys() & {"centroids", "codebooks", "shift", "rotation", "offset"}:
        check_finite(path, name, arrays[name])
    return make_index(
        metric, centroids, codebooks, residual=residual, rotation=rotation, offset=offset,
        shift=shift,
    )  # fmt: skip


def read_tombstones(directory: Path, ref: FileRef | None, next_row_id: int) -> I64:
    """Deleted row ids, ascending; empty when there are none.

    Raises:
        CorruptData: naming the file that is wrong.
    """
    if ref is None:
        return np.zeros(0, dtype=np.int64)
    file = read_blockfile(verify_file(directory, ref), TOMBSTONES_KIND)
    rows = check_array(file.path, file.arrays, "rows", ("int64",), (None,))
    ascends = (rows[1:] > rows[:-1]).all()
    if len(rows) and not (ascends and rows[0] >= 0 and rows[-1] < next_row_id):
        raise corrupt(file.path, f"rows do not ascend within 0..{next_row_id - 1}")
    return rows
