"""Small faiss files, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from ragschema.types import F32
from tests.retrieval_node.interop.cases import Case, build

DIM = 16
ROWS = 1200


def write_index(
    path: Path, key: str = "IVF16,PQ4", ids: tuple[int, ...] | None = None, rows: int = ROWS
) -> F32:
    """Writes a small index; returns its vectors."""
    rows = rows if ids is None else len(ids)
    index, vectors = build(Case(key, n=rows, dim=DIM, ids=ids, nprobe=2))
    faiss.write_index(index, str(path))
    return vectors


def damage(path: Path, seed: int) -> None:
    """Overwrites a few places of a file, or cuts it short."""
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    if seed % 3 == 0:
        del data[int(rng.integers(20, len(data))) :]
    # Small files say most about themselves at their beginning.
    for at in rng.integers(4, min(len(data), 400 if seed % 2 else len(data)), 12).tolist():
        data[at] = int(rng.integers(0, 256))
    path.write_bytes(bytes(data))
