"""Scans by faiss: float tables and sums, one thread per scan.

The fallback where there is no compiler, and what others are compared with. Not
bit-equal to the other backends; the same lists, codes and order.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragschema.types import F32, I32, I64, U8
from retrieval_node.backends.base import (
    Candidates,
    ScanRequest,
    blank_tail,
    merge_candidates,
    no_candidates,
)
from retrieval_node.interop.faiss_build import add_list, empty_index
from retrieval_node.refine import refine
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import ShardSet
from retrieval_node.shard_files import IvfIndex

_PIECE_QUERIES = 32
#: More than asked for, so that most ties at the border are seen at once.
_SPARE = 16
# faiss adds to its classes when it is imported; its type stubs know nothing of that.
_faiss: Any = faiss


class FaissBackend:
    """Implements ``base.Backend`` with one IndexIVFPQ per segment of a shard."""

    name = "faiss"
    device = "cpu"
    pool = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: weakref.WeakKeyDictionary[SegmentRows, Any] = weakref.WeakKeyDictionary()

    def load(self, shard_set: ShardSet) -> None:
        """Copies codes into faiss's lists.

        Raises:
            CorruptData: stored bytes are not what was written.
        """
        if shard_set.index is None:
            return
        with self._lock:
            for shard in shard_set.shards.values():
                for segment in shard.segments:
                    if not segment.exact and segment not in self._indexes:
                        self._indexes[segment] = index_of(shard_set.index, segment)

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        # The setting belongs to the calling thread.
        _faiss.omp_set_num_threads(1)
        n, k = len(request.queries), request.candidates
        found = no_candidates(n, k)
        scanned = 0
        filter_of = np.full(n, -1) if request.filter_of is None else request.filter_of
        for chosen in np.unique(filter_of).tolist():
            selector = selector_of(request, chosen)
            group = np.flatnonzero(filter_of == chosen)
            for start in range(0, len(group), _PIECE_QUERIES):
                request.check()
                at = group[start : start + _PIECE_QUERIES]
                part = self._scan(shard_set, request, at, selector)
                found.distances[at], found.rows[at] = part.distances, part.rows
                found.counts[at] = part.counts
                scanned += part.codes_scanned
        whole = Candidates(found.distances, found.rows, found.counts, scanned)
        return refine(shard_set, request, whole)

    def _scan(
        self, shard_set: ShardSet, request: ScanRequest, at: NDArray[np.intp], selector: Any
    ) -> Candidates:
        queries = np.ascontiguousarray(request.queries[at])
        lists = _packed(request.lists[at])
        parts = [no_candidates(len(at), request.candidates)]
        for number in request.shards:
            for segment in shard_set.shards[number].segments:
                if segment.exact or not len(segment.ids):
                    continue
                index = self._indexes.get(segment)
                assert index is not None, "scanned before it was loaded"
                parts.append(_search(index, segment, queries, lists, request.candidates, selector))
        return merge_candidates(parts, request.candidates)

    def close(self) -> None:
        self._indexes.clear()


def _packed(lists: I32) -> I64:
    """List ids without gaps: faiss reads no further than the number of lists there are."""
    gaps = lists < 0
    width = max(1, int((~gaps).sum(axis=1).max()))
    order = np.argsort(gaps, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(lists, order, axis=1).astype(np.int64)


def index_of(index: IvfIndex, segment: SegmentRows) -> Any:
    """An IndexIVFPQ over the stored codes, with row ids."""
    built = empty_index(index)
    built.use_precomputed_table = -1
    rows, codes = segment.row_ids(), segment.row_codes()
    bounds = segment.list_offsets.tolist()
    for number in np.flatnonzero(np.diff(segment.list_offsets)).tolist():
        first, last = bounds[number], bounds[number + 1]
        add_list(built, number, rows[first:last], codes[first:last])
    return built


def selector_of(request: ScanRequest, chosen: int) -> Any:
    """Rows that may be returned: not deleted, and let through by filter ``chosen``.

    None: all rows. ``chosen`` below 0: no filter.
    """
    bitmap: U8 | None = request.live
    if chosen >= 0:
        assert request.filters is not None, "filter_of refers to filters"
        wanted = request.filters[chosen]
        bitmap = wanted if request.live is None else wanted & request.live
    return None if bitmap is None else _faiss.IDSelectorBitmap(np.ascontiguousarray(bitmap))


def _search(
    index: Any, segment: SegmentRows, queries: F32, lists: I64, k: int, selector: Any
) -> Candidates:
    """Top k of one segment with ties in order of row id; keys ascend for every metric.

    faiss keeps any of several equal keys at the border, so ask for more until
    the border is clear.
    """
    total = len(segment.ids)
    ask = min(total, k + _SPARE)
    sizes = np.diff(segment.list_offsets)
    scanned = int(np.where(lists >= 0, sizes[np.maximum(lists, 0)], 0).sum())
    while True:
        keys, ids = _ask(index, queries, lists, max(1, ask), selector)
        counts = (ids >= 0).sum(axis=1).astype(np.int32)
        unclear = ask > k and ((counts == ask) & (keys[:, k - 1] == keys[:, ask - 1])).any()
        if ask >= total or not unclear:
            break
        ask = min(total, ask * 4)
    return cut(keys, ids, counts, k, scanned)


def _ask(index: Any, queries: F32, lists: I64, ask: int, selector: Any) -> tuple[F32, I64]:
    """The nearest of the given lists by faiss; keys float32 [n, ask] ascend."""
    n, width = lists.shape
    params = _faiss.SearchParametersIVF(sel=selector, nprobe=width)
    inner = index.metric_type == _faiss.METRIC_INNER_PRODUCT
    coarse = np.zeros(lists.shape, dtype=np.float32)
    if inner:
        # Part of the result; for L2 faiss works on the residual by itself.
        _faiss.downcast_index(index.quantizer).compute_distance_subset(
            n, _faiss.swig_ptr(queries), width, _faiss.swig_ptr(coarse), _faiss.swig_ptr(lists)
        )
    keys = np.empty((n, ask), dtype=np.float32)
    ids = np.empty((n, ask), dtype=np.int64)
    # The plain C++ call: the wrapper would take the width from the index,
    # which other threads search at the same time.
    index.search_preassigned_c(
        n, _faiss.swig_ptr(queries), ask, _faiss.swig_ptr(lists), _faiss.swig_ptr(coarse),
        _faiss.swig_ptr(keys), _faiss.swig_ptr(ids), False, params,
    )  # fmt: skip
    return (-keys if inner else keys), ids


def cut(keys: F32, ids: I64, counts: I32, k: int, scanned: int) -> Candidates:
    """The best k by (key, row id) of what faiss found; ids below 0 are none."""
    order = np.lexsort((ids, keys, ids < 0), axis=-1)[:, :k]
    keys, ids = np.take_along_axis(keys, order, axis=1), np.take_along_axis(ids, order, axis=1)
    if keys.shape[1] < k:
        pad = ((0, 0), (0, k - keys.shape[1]))
        keys, ids = np.pad(keys, pad), np.pad(ids, pad)
    return blank_tail(keys, ids, np.minimum(counts, k).astype(np.int32), scanned)
