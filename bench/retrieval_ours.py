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


def open_ragrig(plan: Plan, data: Dataset) -> list[Ragrig]:
    """With float32 and with float16 vectors to rescore with, over the same codes.

    Raises:
        Unavailable: the extension was not built.
    """
    import faiss

    native = require_native()
    parts = take_apart(faiss.read_index(str(ivfpq(plan, data))))
    index = make_index(parts.metric, parts.centroids, parts.codebooks, residual=parts.residual)
    coded = _coded(parts, index)
    segments = [_with_vectors(coded, index, data.base, kind) for kind in (np.float32, np.float16)]
    return [Ragrig(native, plan.k, index, segment) for segment in segments]


class Ragrig:
    """The native search with one thread."""

    def __init__(self, native: Any, k: int, index: IvfIndex, segment: SegmentRows) -> None:
        assert segment.vectors is not None, "every segment here refines"
        self._native = native
        self._k = k
        self._index = index
        self._segment = segment
        self._pool = native.Pool(1)
        self.name = f"ragrig-{segment.vectors.dtype.name}"
        self.memory_bytes = segment.resident_bytes + _index_bytes(index)

    def at(self, setting: Setting) -> Search:
        index, segments, pool, k = self._index.handle, [self._segment.handle], self._pool, self._k
        assert index is not None, "required on construction"
        coarse, native_search = index.coarse, self._native.search
        refine_k = setting.depth or 0

        def search(queries: F32) -> I64:
            lists = coarse(queries, setting.probes, pool, reach=setting.reach)
            found = native_search(index, segments, queries, lists, k, pool, refine_k=refine_k)
            rows: I64 = found.rows
            return rows

        return search


def _coded(parts: FaissParts, index: IvfIndex) -> SegmentRows:
    """The rows of faiss's lists in the layout of our kernels, without vectors."""
    encoder = BiasEncoder(index)
    lists = [_placed(encoder, number, *parts.list_rows(number)) for number in range(parts.nlist)]
    rows = np.concatenate([row_ids for row_ids, _ in lists])
    offsets = np.zeros(parts.nlist + 1, dtype=np.int64)
    np.cumsum([len(row_ids) for row_ids, _ in lists], out=offsets[1:])
    codes = group_codes(np.concatenate([codes for _, codes in lists]), offsets)
    bias, affine = _bias(encoder, index.nlist, offsets, [codes for _, codes in lists])
    ids = rows.astype(np.uint32)
    return segment_in_memory(index, offsets, ids, codes, bias, affine, None, len(ids))


def _placed(encoder: BiasEncoder, number: int, rows: I64, codes: U8) -> tuple[I64, U8]:
    """A list's rows in the order in which ragrig writes them."""
    order = encoder.order(number, codes)
    return rows[order], codes[order]


def _with_vectors(
    coded: SegmentRows, index: IvfIndex, base: F32, kind: type[np.floating[Any]]
) -> SegmentRows:
    stored = base[coded.ids].astype(kind)
    return segment_in_memory(
        index, coded.list_offsets, coded.ids, coded.codes, coded.bias, coded.bias_affine, stored,
        coded.row_count,
    )  # fmt: skip


def _bias(encoder: BiasEncoder, nlist: int, offsets: I64, lists: list[U8]) -> tuple[U16, F32]:
    lanes = lane_offsets(offsets)
    bias = np.zeros(int(lanes[-1]), dtype=np.uint16)
    affine = np.zeros((nlist, 2), dtype=np.float32)
    for number, codes in enumerate(lists):
        if len(codes):
            low, high = lanes[number : number + 2]
            bias[low:high], affine[number] = encoder.encode(number, codes)
    return bias, affine


def _index_bytes(index: IvfIndex) -> int:
    return index.centroids.nbytes + index.codebooks.nbytes
