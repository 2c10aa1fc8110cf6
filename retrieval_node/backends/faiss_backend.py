"""The reference backend: float tables and sums by faiss, one thread per scan.

Not bit-equal to the fixed-point contract; the same lists, codes and order.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import faiss
import numpy as np

from ragschema.types import F32, I32, I64, U8, Metric
from retrieval_node.backends.base import Candidates, ScanRequest, blank_tail, merge_candidates
from retrieval_node.shard import ShardRows, ShardSet
from retrieval_node.shard_files import IvfIndex

_PIECE_QUERIES = 32
# faiss adds to its classes when it is imported; its type stubs know nothing of that.
_faiss: Any = faiss


class FaissBackend:
    """Implements ``base.Backend`` with one IndexIVFPQ per shard."""

    name = "faiss"
    device = "cpu"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: weakref.WeakKeyDictionary[ShardRows, Any] = weakref.WeakKeyDictionary()

    def load(self, shard_set: ShardSet) -> None:
        if shard_set.index is None:
            return
        with self._lock:
            for shard in shard_set.shards.values():
                if shard.rows not in self._indexes:
                    self._indexes[shard.rows] = _build(
                        shard_set.index, shard.rows, shard_set.metric
                    )

    def scan(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        # The setting belongs to the calling thread.
        _faiss.omp_set_num_threads(1)
        n, k = len(request.queries), request.k
        distances = np.zeros((n, k), dtype=np.float32)
        rows = np.zeros((n, k), dtype=np.int64)
        counts = np.zeros(n, dtype=np.int32)
        scanned = 0
        for chosen in np.unique(request.filter_of).tolist():
            selector = _selector(shard_set, request, chosen)
            group = np.flatnonzero(request.filter_of == chosen)
            for start in range(0, len(group), _PIECE_QUERIES):
                request.checkpoint()
                at = group[start : start + _PIECE_QUERIES]
                found = self._scan_group(shard_set, request, at, selector)
                distances[at], rows[at], counts[at] = found.distances, found.rows, found.counts
                scanned += found.codes_scanned
        return Candidates(distances, rows, counts, scanned)

    def _scan_group(
        self, shard_set: ShardSet, request: ScanRequest, at: I64, selector: Any
    ) -> Candidates:
        queries = np.ascontiguousarray(request.queries[at])
        lists = _padded(request, at)
        parts = []
        for number in request.shards:
            rows = shard_set.shards[number].rows
            assert rows in self._indexes, "scanned before it was loaded"
            parts.append(_search(self._indexes[rows], rows, queries, lists, request.k, selector))
        return merge_candidates(parts, request.k)

    def close(self) -> None:
        self._indexes.clear()


def _build(index: IvfIndex, rows: ShardRows, metric: Metric) -> Any:
    """An IndexIVFPQ over the stored codes. Inner products are searched as such."""
    dim, m = index.centroids.shape[1], index.m
    kind = _faiss.METRIC_L2 if metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    quantizer = _faiss.IndexFlat(dim, kind)
    quantizer.add(index.centroids)
    built = _faiss.IndexIVFPQ(quantizer, dim, index.nlist, m, 8, kind)
    built.by_residual = True
    built.use_precomputed_table = -1
    _faiss.copy_array_to_vector(index.codebooks.reshape(-1), built.pq.centroids)
    built.is_trained = True
    lists = built.invlists
    for number in range(index.nlist):
        first, last = int(rows.list_offsets[number]), int(rows.list_offsets[number + 1])
        if last > first:
            lists.add_entries(
                number,
                last - first,
                _faiss.swig_ptr(rows.ids[first:last]),
                _faiss.swig_ptr(rows.codes[first:last]),
            )
    built.ntotal = len(rows.ids)
    return built


def _selector(shard_set: ShardSet, request: ScanRequest, chosen: int) -> Any:
    """Rows that may be returned: not deleted, and let through by the filter."""
    live = shard_set.live
    if chosen < 0:
        bitmap: U8 | None = live
    else:
        wanted = request.filters[chosen]
        bitmap = wanted if live is None else wanted & live
    return None if bitmap is None else _faiss.IDSelectorBitmap(np.ascontiguousarray(bitmap))


def _padded(request: ScanRequest, at: I64) -> I64:
    """List ids int64 [n, widest], -1 past the end."""
    counts = np.diff(request.starts)[at]
    lists = np.full((len(at), max(1, int(counts.max()))), -1, dtype=np.int64)
    for row, q in enumerate(at.tolist()):
        own = request.lists[request.starts[q] : request.starts[q + 1]]
        lists[row, : len(own)] = own
    return lists


def _search(
    index: Any, rows: ShardRows, queries: F32, lists: I64, k: int, selector: Any
) -> Candidates:
    """Top k of one shard with ties in order of row id; keys ascend for every metric.

    faiss keeps any of several equal keys at the border, so ask for more until
    the border is clear.
    """
    total = len(rows.ids)
    ask = min(total, k + 16)
    scanned = int(np.where(lists >= 0, np.diff(rows.list_offsets)[np.maximum(lists, 0)], 0).sum())
    while True:
        keys, ids = _ask(index, queries, lists, max(1, ask), selector)
        counts = (ids >= 0).sum(axis=1).astype(np.int32)
        unclear = ask > k and ((counts == ask) & (keys[:, k - 1] == keys[:, ask - 1])).any()
        if ask >= total or not unclear:
            break
        ask = min(total, ask * 4)
    return _cut(keys, ids, counts, k, scanned)


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


def _cut(keys: F32, ids: I64, counts: I32, k: int, scanned: int) -> Candidates:
    order = np.lexsort((ids, keys, ids < 0), axis=-1)[:, :k]
    keys, ids = np.take_along_axis(keys, order, axis=1), np.take_along_axis(ids, order, axis=1)
    if keys.shape[1] < k:
        pad = ((0, 0), (0, k - keys.shape[1]))
        keys, ids = np.pad(keys, pad), np.pad(ids, pad)
    return blank_tail(keys, ids, np.minimum(counts, k).astype(np.int32), scanned)
