"""Scans on a GPU by faiss's GpuIndexIVFPQ, behind the same protocol.

The GPU knows no filters and gives at most 2 048 rows. Rows that may not be
returned are taken out afterwards; queries that then come short, or want more,
are scanned again on the CPU. Codes live in GPU memory, one index per segment.

A build of faiss whose GPU index cannot be told which lists to scan probes by
itself, with as many lists per query as the request has at most: the same lists
but for ties, since the coordinator chooses the nearest too.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import IncompatibleRequest, Unavailable
from ragschema.types import F32, I64, U8, Metric
from retrieval_node.backends.base import (
    Candidates,
    ScanRequest,
    blank_tail,
    merge_candidates,
    no_candidates,
)
from retrieval_node.backends.faiss_backend import FaissBackend, cut, index_of
from retrieval_node.refine import refine
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import ShardSet
from retrieval_node.shard_files import IvfIndex

_MOST_K: Final = 2048
#: More than asked for: ties at the border, and rows that are deleted or filtered out.
_SPARE: Final = 64
_PIECE_QUERIES: Final = 256
_DEVICE: Final = 0
#: Longer codes need half-precision tables on the device.
_FLOAT32_TABLES_MAX_M: Final = 64


def gpu_faiss() -> Any:
    """faiss, of a build and on a machine that have a GPU.

    Raises:
        Unavailable: saying which of the two is missing.
    """
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise Unavailable(
            "this faiss was built without GPU support",
            field="backend",
            hint="put faiss-gpu-cu12 in place of faiss-cpu, or use backend simd",
        )
    if faiss.get_num_gpus() < 1:
        raise Unavailable(
            "faiss sees no GPU",
            field="backend",
            hint="check `nvidia-smi` and the driver, or use backend simd",
        )
    return faiss


class FaissGpuBackend:
    """Implements ``base.Backend`` on one GPU.

    Args:
        library: faiss; None: the installed one.

    Raises:
        Unavailable: see ``gpu_faiss``.
    """

    name = "faiss-gpu"
    device = f"gpu{_DEVICE}"
    pool = None

    def __init__(self, library: Any = None) -> None:
        self._faiss: Any = gpu_faiss() if library is None else library
        self._resources: Any = self._faiss.StandardGpuResources()
        # The resources of a GPU serve one call at a time.
        self._lock = threading.Lock()
        self._indexes: weakref.WeakKeyDictionary[SegmentRows, Any] = weakref.WeakKeyDictionary()
        self._cpu = FaissBackend()

    def load(self, shard_set: ShardSet) -> None:
        """Copies codes into GPU memory.

        Raises:
            IncompatibleRequest: codes of whole vectors, which the GPU cannot scan.
            Unavailable: the GPU took them not, as for want of memory.
            CorruptData: stored bytes are not what was written.
        """
        index = shard_set.index
        if index is None:
            return
        if not index.residual:
            raise IncompatibleRequest(
                f"collection {shard_set.snapshot.collection!r} holds codes of whole vectors,"
                " which faiss cannot scan on a GPU",
                field="backend",
                hint="use backend simd",
            )
        with self._lock:
            for shard in shard_set.shards.values():
                for segment in shard.segments:
                    if not segment.exact and segment not in self._indexes:
                        self._indexes[segment] = self._on_gpu(index, segment)

    def _on_gpu(self, index: IvfIndex, segment: SegmentRows) -> Any:
        options = self._faiss.GpuClonerOptions()
        # Tables that depend on coarse distances would take their rounding over.
        options.usePrecomputed = False
        options.useFloat16 = index.m > _FLOAT32_TABLES_MAX_M
        try:
            return self._faiss.index_cpu_to_gpu(
                self._resources, _DEVICE, index_of(index, segment), options
            )
        except RuntimeError as error:
            raise Unavailable(
                f"the GPU cannot hold {segment.path}: {str(error)[-300:]}",
                field="backend",
                hint="give the node fewer shards, or use backend simd",
            ) from error

    def search(self, shard_set: ShardSet, request: ScanRequest) -> Candidates:
        n, k = len(request.queries), request.candidates
        parts = [no_candidates(n, k)]
        short = np.full(n, k > _MOST_K - _SPARE)
        if not short.any():
            for number in request.shards:
                for segment in shard_set.shards[number].segments:
                    if not segment.exact and len(segment.ids):
                        found, incomplete = self._segment(shard_set, request, segment)
                        parts.append(found)
                        short |= incomplete
        whole = refine(shard_set, request, merge_candidates(parts, k))
        return self._again(shard_set, request, whole, short) if short.any() else whole

    def _segment(
        self, shard_set: ShardSet, request: ScanRequest, segment: SegmentRows
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """The best of one segment, and which queries may lack rows."""
        assert shard_set.index is not None, "coded segments have an index"
        gpu = self._indexes.get(segment)
        assert gpu is not None, "scanned before it was loaded"
        n, k = len(request.queries), request.candidates
        ask = min(_MOST_K, k + _SPARE)
        sizes = np.diff(segment.list_offsets)
        wanted = np.where(request.lists >= 0, sizes[np.maximum(request.lists, 0)], 0)
        keys, rows = np.zeros((n, ask), np.float32), np.full((n, ask), -1, np.int64)
        for first in range(0, n, _PIECE_QUERIES):
            request.check()
            some = slice(first, first + _PIECE_QUERIES)
            queries = np.ascontiguousarray(request.queries[some])
            lists = np.ascontiguousarray(request.lists[some], dtype=np.int64)
            coarse = coarse_distances(queries, lists, shard_set.index)
            keys[some], rows[some] = self._ask(gpu, queries, lists, coarse, ask)
        if shard_set.metric is not Metric.L2:
            keys = -keys
        full = (rows >= 0).all(axis=1) & (wanted.sum(axis=1) > ask)
        rows = np.where(_allowed(request, rows), rows, -1)
        counts = (rows >= 0).sum(axis=1).astype(np.int32)
        # Where the device stopped at the border of what it gave, ties may go on behind it.
        last = np.where(rows >= 0, keys, -np.inf).max(axis=1)
        best = cut(keys, rows, counts, k, int(wanted.sum()))
        tied = (best.counts == k) & (best.distances[:, -1] == last)
        return best, full & ((counts < k) | tied)

    def _ask(self, gpu: Any, queries: F32, lists: I64, coarse: F32, ask: int) -> tuple[F32, I64]:
        n, width = lists.shape
        keys = np.empty((n, ask), dtype=np.float32)
        rows = np.empty((n, ask), dtype=np.int64)
        with self._lock:
            gpu.nprobe = width
            call = getattr(gpu, "search_preassigned_c", None)
            if call is None:
                found: tuple[F32, I64] = gpu.search(queries, ask)
                return found
            ptr = self._faiss.swig_ptr
            call(n, ptr(queries), ask, ptr(lists), ptr(coarse), ptr(keys), ptr(rows), False)
        return keys, rows

    def _again(
        self, shard_set: ShardSet, request: ScanRequest, found: Candidates,
        short: NDArray[np.bool_],
    ) -> Candidates:  # fmt: skip
        """The short queries by the CPU, in place of what the GPU gave."""
        self._cpu.load(shard_set)
        at = np.flatnonzero(short)
        part = self._cpu.search(shard_set, _only(request, at))
        found.distances[at], found.rows[at] = part.distances, part.rows
        found.counts[at] = part.counts
        return blank_tail(
            found.distances, found.rows, found.counts, found.codes_scanned + part.codes_scanned
        )

    def close(self) -> None:
        self._indexes.clear()
        self._cpu.close()


def coarse_distances(queries: F32, lists: I64, index: IvfIndex) -> F32:
    """Of each query to the centroids of its lists, as faiss has them: float32 [n, nprobe]."""
    centroids = index.centroids[np.maximum(lists, 0)]
    if index.metric is Metric.L2:
        apart = queries[:, None, :] - centroids
        return np.asarray(np.einsum("qld,qld->ql", apart, apart), dtype=np.float32)
    return np.asarray(np.einsum("qd,qld->ql", queries, centroids), dtype=np.float32)


def _allowed(request: ScanRequest, rows: I64) -> NDArray[np.bool_]:
    """Which rows exist, are not deleted and pass their query's filter: bool, as ``rows``."""
    at = np.maximum(rows, 0)
    allowed = rows >= 0
    if request.live is not None:
        allowed &= _bits(request.live[at >> 3], at)
    if request.filters is not None and request.filter_of is not None:
        chosen = request.filter_of[:, None]
        passes = _bits(request.filters[np.maximum(chosen, 0), at >> 3], at)
        allowed &= passes | (chosen < 0)
    return allowed


def _bits(bytes_: U8, rows: I64) -> NDArray[np.bool_]:
    return np.asarray(bytes_ >> (rows & 7).astype(np.uint8) & 1, dtype=np.bool_)


def _only(request: ScanRequest, at: NDArray[np.intp]) -> ScanRequest:
    """The request of some of its queries."""
    return replace(
        request,
        queries=np.ascontiguousarray(request.queries[at]),
        refine_queries=np.ascontiguousarray(request.refine_queries[at]),
        lists=np.ascontiguousarray(request.lists[at]),
        filter_of=None if request.filter_of is None else request.filter_of[at],
    )
