"""The libraries that `bench.retrieval` compares with, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.datasets import Dataset
from bench.retrieval_build import fastscan, graph, ivfpq, peer, scann
from bench.retrieval_plan import Plan, ScannBuild, Setting
from ragschema.types import F32, I64

#: float32 queries [n, dim] to row ids int64 [n, k].
Search = Callable[[F32], I64]


class Contestant(Protocol):
    """One index to search.

    Attributes:
        name: its kind, a dash and what tells it from others of its kind.
        memory_bytes: of the index in memory: codes, ids, links, and the vectors
            where it rescores with them.
    """

    name: str
    memory_bytes: int

    def at(self, setting: Setting) -> Search:
        """The search with one setting; valid until the next call of ``at``."""


class FaissIvfPq:
    """IndexIVFPQ; faiss keeps its precomputed tables, its fastest way."""

    name = "ivfpq"

    def __init__(self, plan: Plan, data: Dataset) -> None:
        import faiss

        path = ivfpq(plan, data)
        self._codes: Any = faiss.read_index(str(path))
        self._refined: Any = None
        self._k = plan.k
        self._base = data.base
        self.memory_bytes = path.stat().st_size
        codes: Any = self._codes
        assert codes.use_precomputed_table == 1, "faiss chose not to precompute"

    def at(self, setting: Setting) -> Search:
        self._codes.nprobe = setting.probes
        if setting.depth is None:
            return _faiss_search(self._codes, self._k)
        if self._refined is None:
            self._refined = _refine_flat(self._codes, self._base)
            self.memory_bytes += self._base.nbytes
        self._refined.k_factor = setting.depth / self._k
        return _faiss_search(self._refined, self._k)


class FastScan:
    """IndexIVFPQFastScan, rescored by IndexRefineFlat."""

    def __init__(self, plan: Plan, data: Dataset, m: int) -> None:
        import faiss

        path = fastscan(plan, data, m)
        self.name = f"fastscan-{m}x4"
        self._codes: Any = faiss.read_index(str(path))
        self._refined = _refine_flat(self._codes, data.base)
        self._k = plan.k
        self.memory_bytes = path.stat().st_size + data.base.nbytes

    def at(self, setting: Setting) -> Search:
        self._codes.nprobe = setting.probes
        if setting.depth is None:
            return _faiss_search(self._codes, self._k)
        self._refined.k_factor = setting.depth / self._k
        return _faiss_search(self._refined, self._k)


class Scann:
    """A ScaNN tree; its batched search runs in the calling thread."""

    def __init__(self, plan: Plan, data: Dataset, choice: ScannBuild) -> None:
        folder = scann(plan, data, choice)
        self.name = choice.name
        self._searcher: Any = peer("scann").scann_ops_pybind.load_searcher(str(folder))
        self._k = plan.k
        self.memory_bytes = _folder_bytes(folder)

    def at(self, setting: Setting) -> Search:
        def search(queries: F32) -> I64:
            found = self._searcher.search_batched(queries, self._k, setting.depth, setting.probes)
            return np.asarray(found[0], dtype=np.int64)

        return search


class Hnsw:
    """hnswlib, one thread."""

    def __init__(self, plan: Plan, data: Dataset) -> None:
        path = graph(plan, data)
        self.name = f"hnswlib-{plan.graph_degree}"
        self._index: Any = peer("hnswlib").Index("l2", plan.dim)
        self._index.load_index(str(path))
        self._k = plan.k
        self.memory_bytes = path.stat().st_size

    def at(self, setting: Setting) -> Search:
        self._index.set_ef(setting.probes)

        def search(queries: F32) -> I64:
            rows, _ = self._index.knn_query(queries, self._k, num_threads=1)
            return np.asarray(rows, dtype=np.int64)

        return search


def _refine_flat(codes: Any, base: F32) -> Any:
    """IndexRefineFlat, not the more general and slower IndexRefine."""
    import faiss

    refined = faiss.IndexRefineFlat(codes, faiss.swig_ptr(base))
    refined.own_fields = False
    return refined


def _faiss_search(index: Any, k: int) -> Search:
    def search(queries: F32) -> I64:
        rows: I64 = index.search(queries, k)[1]
        return rows

    return search


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
