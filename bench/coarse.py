"""How long does the coordinator take to choose a query's lists?

``CoarseIndex.nearest`` beside faiss' IndexFlatL2.search for as many neighbours,
one thread, in turn within one process, on rows of ``bench.datasets`` as
centroids. Every point is the median over rounds of the fastest of a few calls;
``coarse_us_per_query`` is that at nlist 1024, batch 64, and ``ratio_to_faiss``
says how many times longer faiss takes. Both are exact: the share of equal lists
falls short of 1 only by ties within float32's rounding.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.common import emit, machine, options
from bench.datasets import Dataset, clustered
from coordinator.stages.probe import CoarseIndex
from ragschema.procs import calm_thread_pools
from ragschema.types import F32, Metric

DIM, NPROBE, SEED = 128, 32, 20
NLISTS = (1024, 4096)
BATCHES = (1, 8, 64, 256)
LIMIT_US = 8.0
_ROUNDS = 15
_CALLS = 5
#: Batches that take turns, so that no result stays in a cache with its query.
_TURNS = 4


Lists = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Point:
    """Microseconds per query at one size, and how far both agree."""

    nlist: int
    batch: int
    coarse_us: float
    faiss_us: float
    equal_lists: float

    def shown(self) -> dict[str, Any]:
        return {
            "nlist": self.nlist,
            "batch": self.batch,
            "nprobe": NPROBE,
            "coarse_us_per_query": round(self.coarse_us, 2),
            "faiss_us_per_query": round(self.faiss_us, 2),
            "ratio_to_faiss": round(self.faiss_us / self.coarse_us, 2),
            "equal_lists": round(self.equal_lists, 5),
        }


def measure(data: Dataset, nlist: int, batch: int) -> Point:
    """Both contestants in turn, with the first ``nlist`` rows of the base as centroids."""
    centroids = data.base[:nlist]
    nprobe = min(NPROBE, nlist)
    ours = CoarseIndex(centroids, Metric.L2)
    theirs = faiss.IndexFlatL2(centroids.shape[1])
    theirs.add(centroids)
    batches = [data.queries[i * batch : (i + 1) * batch] for i in range(_TURNS)]

    def faiss_lists(queries: F32) -> Lists:
        found: Lists = theirs.search(queries, nprobe)[1]
        return found

    def our_lists(queries: F32) -> Lists:
        return ours.nearest(queries, nprobe)

    equal = float(np.mean([our_lists(q) == faiss_lists(q) for q in batches]))
    ours_us, theirs_us = [], []
    for _ in range(_ROUNDS):
        ours_us.append(_fastest_us(our_lists, batches) / batch)
        theirs_us.append(_fastest_us(faiss_lists, batches) / batch)
    return Point(nlist, batch, statistics.median(ours_us), statistics.median(theirs_us), equal)


def _fastest_us(search: Callable[[F32], Lists], batches: list[F32]) -> float:
    """Of a few calls; what else the machine does only ever adds."""
    took = []
    for call in range(_CALLS):
        queries = batches[call % len(batches)]
        started_s = time.perf_counter()
        search(queries)
        took.append(time.perf_counter() - started_s)
    return min(took) * 1e6


def run() -> dict[str, Any]:
    """Every point, and the one the limit is about."""
    data = clustered(max(NLISTS), DIM, seed=SEED, queries=_TURNS * max(BATCHES))
    points = [measure(data, nlist, batch) for nlist in NLISTS for batch in BATCHES]
    judged = next(p for p in points if (p.nlist, p.batch) == (1024, 64))
    return {
        "coarse_us_per_query": round(judged.coarse_us, 2),
        "limit_us": LIMIT_US,
        "within_limit": judged.coarse_us <= LIMIT_US,
        "ratio_to_faiss": round(judged.faiss_us / judged.coarse_us, 2),
        "seed": SEED,
        "dim": DIM,
        "points": [p.shown() for p in points],
    }


def main() -> None:
    given = options(__doc__ or "").parse_args()
    faiss.omp_set_num_threads(1)
    emit(run() | {"machine": machine()}, given)


def _single_threaded() -> None:
    """Starts this program again unless BLAS was told to use one thread before it was loaded."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        calm_thread_pools(1)
        os.execv(sys.executable, [sys.executable, "-m", "bench.coarse", *sys.argv[1:]])


if __name__ == "__main__":
    _single_threaded()
    main()
