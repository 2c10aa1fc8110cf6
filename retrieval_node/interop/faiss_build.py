"""An index of ours as a faiss IndexIVFPQ."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from ragschema.types import I64, U8, Metric
from retrieval_node.shard_files import IvfIndex

# faiss adds to its classes when it is imported; its type stubs know nothing of that.
_faiss: Any = faiss


def empty_index(index: IvfIndex) -> Any:
    """An IndexIVFPQ of the rotated space with centroids and codebooks, and no rows.

    Cosine is searched as inner product.
    """
    squared = index.metric is Metric.L2
    kind = _faiss.METRIC_L2 if squared else _faiss.METRIC_INNER_PRODUCT
    quantizer = (_faiss.IndexFlatL2 if squared else _faiss.IndexFlatIP)(index.dim)
    quantizer.add(index.centroids)
    built = _faiss.IndexIVFPQ(quantizer, index.dim, index.nlist, index.m, 8, kind)
    built.by_residual = index.residual
    _faiss.copy_array_to_vector(index.codebooks.reshape(-1), built.pq.centroids)
    built.is_trained = True
    return built


def add_list(built: Any, number: int, ids: I64, codes: U8) -> None:
    """Appends rows to one inverted list: int64 [n] and uint8 [n, m]."""
    ids, codes = np.ascontiguousarray(ids), np.ascontiguousarray(codes)
    built.invlists.add_entries(number, len(ids), _faiss.swig_ptr(ids), _faiss.swig_ptr(codes))
    built.ntotal += len(ids)


def with_rotation(built: Any, index: IvfIndex) -> Any:
    """Inside an IndexPreTransform, where the index rotates."""
    if index.rotation is None and index.offset is None:
        return built
    rotation = index.rotation
    if rotation is None:
        rotation = np.eye(index.dim, dtype=np.float32)
    transform = _faiss.LinearTransform(index.input_dim, index.dim, index.offset is not None)
    _faiss.copy_array_to_vector(np.ascontiguousarray(rotation).reshape(-1), transform.A)
    if index.offset is not None:
        _faiss.copy_array_to_vector(index.offset, transform.b)
    transform.is_trained = True
    transform.set_is_orthonormal()
    whole = _faiss.IndexPreTransform(transform, built)
    whole.is_trained = True
    return whole
