"""ragrig's own search for `bench.retrieval`: the codes of faiss's index, from vector to rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets import Dataset
from bench.retrieval_build import ivfpq
from bench.retrieval_peers import Search
from bench.retrieval_plan import Plan, Setting
from ragschema.types import F32, I64, U8
from retrieval_node.bias import BiasEncoder
from retrieval_node.interop.faiss_parts import FaissParts, take_apart
from retrieval_node.layout import group_codes, lane_offsets
from retrieval_node.native.loader import require_native
from retrieval_node.segment import SegmentRows, segment_in_memory
from retrieval_node.shard_files import IvfIndex, make_index

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]


class Ragrig:
    """The native search with one thread.

    Args:
        vectors: float32 or float16 to rescore with, None for scans alone.

    Raises:
        Unavailable: the extension was not built.
    """

    def __init__(self, plan: Plan, data: Dataset, vectors: np.dtype[Any] | None) -> None:
        import faiss

        self._native = require_native()
        parts = take_apart(faiss.read_index(str(ivfpq(plan, data))))
        self.name = "ragrig" if vectors is None else f"ragrig-{vectors.name}"
        self._index = _index_of(parts)
        self._segment = _segment_of(parts, self._index, data, vectors)
        self._pool = self._native.Pool(1)
        self._k = plan.k
        self.memory_bytes = self._segment.resident_bytes + _index_bytes(self._index)

    def at(self, setting: Setting) -> Search:
        index, segments, pool, k = self._index.handle, [self._segment.handle], self._pool, self._k
        assert index is not None, "required on construction"
        coarse, native_search = index.coarse, self._native.search
        refine_k = setting.depth or 0

        def search(queries: F32) -> I64:
            lists = coarse(queries, setting.probes, pool)
            found = native_search(index, segments, queries, lists, k, pool, refine_k=refine_k)
            rows: I64 = found.rows
            return rows

        return search


def _index_of(parts: FaissParts) -> IvfIndex:
    return make_index(parts.metric, parts.centroids, parts.codebooks, residual=parts.residual)


def _segment_of(
    parts: FaissParts, index: IvfIndex, data: Dataset, vectors: np.dtype[Any] | None
) -> SegmentRows:
    lists = [parts.list_rows(number) for number in range(parts.nlist)]
    rows = np.concatenate([row_ids for row_ids, _ in lists])
    offsets = np.zeros(parts.nlist + 1, dtype=np.int64)
    np.cumsum([len(row_ids) for row_ids, _ in lists], out=offsets[1:])
    codes = group_codes(np.concatenate([codes for _, codes in lists]), offsets)
    bias, affine = _bias(index, offsets, [codes for _, codes in lists])
    stored = None if vectors is None else data.base[rows].astype(vectors)
    return segment_in_memory(
        index, offsets, rows.astype(np.uint32), codes, bias, affine, stored, len(data.base)
    )


def _bias(index: IvfIndex, offsets: I64, lists: list[U8]) -> tuple[U16, F32]:
    encoder = BiasEncoder(index)
    lanes = lane_offsets(offsets)
    bias = np.zeros(int(lanes[-1]), dtype=np.uint16)
    affine = np.zeros((index.nlist, 2), dtype=np.float32)
    for number, codes in enumerate(lists):
        if len(codes):
            low, high = lanes[number : number + 2]
            bias[low:high], affine[number] = encoder.encode(number, codes)
    return bias, affine


def _index_bytes(index: IvfIndex) -> int:
    return index.centroids.nbytes + index.codebooks.nbytes
