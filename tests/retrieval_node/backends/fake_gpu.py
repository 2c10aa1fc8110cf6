"""A faiss whose GPU is the CPU: the edge that the GPU backend talks to."""

from __future__ import annotations

from typing import Any

import faiss

_MOST_K = 2048


class StandInGpuFaiss:
    """The names the backend uses, with the limits of the real ones.

    Args:
        choosing: the index can be told which lists to scan.
        full: there is no memory left on the device.
    """

    swig_ptr = staticmethod(faiss.swig_ptr)

    def __init__(self, *, choosing: bool = True, full: bool = False) -> None:
        self._choosing = choosing
        self._full = full
        self.calls: list[int] = []

    class StandardGpuResources:
        """Nothing to hold."""

    class GpuClonerOptions:
        usePrecomputed = True
        useFloat16 = False

    def index_cpu_to_gpu(self, resources: Any, device: int, index: Any, options: Any) -> Any:
        assert isinstance(resources, self.StandardGpuResources)
        assert device == 0
        assert not options.usePrecomputed
        assert index.by_residual, "the real one aborts"
        if self._full:
            raise RuntimeError("Error in cudaMalloc: out of memory")
        return (_Choosing if self._choosing else _Probing)(index, self.calls)


class _Probing:
    """An index on the device; ``calls``: rows asked for, by call."""

    nprobe = 1

    def __init__(self, index: Any, calls: list[int]) -> None:
        self._index = index
        self._calls = calls

    def search(self, queries: Any, k: int) -> Any:
        assert k <= _MOST_K
        self._calls.append(k)
        self._index.nprobe = self.nprobe
        return self._index.search(queries, k)


class _Choosing(_Probing):
    def search_preassigned_c(
        self, n: int, x: Any, k: int, assign: Any, coarse: Any, keys: Any, rows: Any, pairs: bool
    ) -> None:
        assert k <= _MOST_K
        self._calls.append(k)
        self._index.nprobe = self.nprobe
        self._index.search_preassigned_c(n, x, k, assign, coarse, keys, rows, pairs)
