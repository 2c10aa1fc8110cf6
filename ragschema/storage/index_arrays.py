"""What of a trained index it takes to choose lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragschema.storage.blockfile import BlockFile, read_blockfile
from ragschema.storage.blockhead import corrupt
from ragschema.storage.manifest import Manifest, verify_file
from ragschema.types import F32

KIND = "ivfpq-index"


@dataclass(frozen=True, eq=False)
class IndexArrays:
    """Where lists lie, and how queries get there.

    Attributes:
        centroids: float32 [nlist, inner dim].
        rotation: float32 [inner dim, dim], applied to queries first; None: none.
        offset: float32 [inner dim], added after it; None: none.
    """

    centroids: F32
    rotation: F32 | None
    offset: F32 | None


def read_index_arrays(directory: Path, manifest: Manifest) -> IndexArrays | None:
    """Those of the committed index; None while the collection is exact.

    Raises:
        CorruptData: naming the file, which is not what the manifest says.
    """
    ref = manifest.index
    if ref is None:
        return None
    file = read_blockfile(verify_file(directory, ref.file), KIND)
    inner = _inner_dim(file, manifest.dim, ref.rotated)
    offset = _array(file, "offset", (inner,)) if "offset" in file.arrays else None
    rotation = _array(file, "rotation", (inner, manifest.dim)) if ref.rotated else None
    return IndexArrays(_array(file, "centroids", (ref.nlist, inner)), rotation, offset)


def _inner_dim(file: BlockFile, dim: int, rotated: bool) -> int:
    if ("rotation" in file.arrays) != rotated:
        raise corrupt(file.path, "has a rotation where the manifest knows of none, or none")
    return len(file.arrays["rotation"]) if rotated else dim


def _array(file: BlockFile, name: str, shape: tuple[int, ...]) -> F32:
    found = file.arrays.get(name)
    if found is None or found.shape != shape or found.dtype != np.float32:
        raise corrupt(file.path, f"has no {name} of shape {list(shape)}")
    return found
