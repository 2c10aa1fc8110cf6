"""What does a filter do to recall, and what does growing the lists do about it?

Rows of ``bench.datasets`` in lists of a trained index. Recall@10 against exact
answers among the rows that pass, with distances within lists exact, so that only
the choice of lists shows: at the same nprobe as without a filter, and at the
lists that ``coordinator.stages.row_filter`` grows it to. Filters are of two kinds:
rows drawn at random, and whole lists drawn at random, which leaves most queries
without any row near them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.common import emit, machine, note, options
from bench.datasets import Dataset, clustered
from coordinator.stages.probe import CoarseIndex
from coordinator.stages.row_filter import RowFilter, reach_of
from ragschema.types import F32, I64, Metric

ROWS, DIM, NLIST, QUERIES, K, SEED = 200_000, 64, 512, 200, 10, 3
NPROBES = (4, 8, 16)
SHARES = (0.5, 0.1, 0.01, 0.001)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lists:
    """Rows in their lists, and each query's ranking of the lists.

    Attributes:
        list_of: int64 [rows].
        place: int64 [queries, nlist], a list's place in the query's ranking.
    """

    data: Dataset
    list_of: I64
    place: I64

    @classmethod
    def train(cls, data: Dataset, nlist: int, seed: int) -> Lists:
        dim = data.base.shape[1]
        kmeans = faiss.Kmeans(dim, nlist, niter=8, seed=seed)
        kmeans.train(data.base)
        coarse = CoarseIndex(np.asarray(kmeans.centroids, np.float32), Metric.L2)
        ranked = coarse.nearest(data.queries, nlist).astype(np.int64)
        place = np.empty_like(ranked)
        np.put_along_axis(place, ranked, np.arange(nlist)[np.newaxis], axis=1)
        return cls(data, coarse.nearest(data.base, 1)[:, 0].astype(np.int64), place)

    def recall(self, passing: Mask, lists: int) -> float:
        """Share of the k nearest passing rows that lie in the first lists."""
        rows = np.flatnonzero(passing)
        truth = rows[_nearest(self.data.base[rows], self.data.queries, min(K, len(rows)))]
        return float((np.take_along_axis(self.place, self.list_of[truth], axis=1) < lists).mean())


def _nearest(base: F32, queries: F32, k: int) -> I64:
    index = faiss.IndexFlatL2(base.shape[1])
    index.add(base)
    found: I64 = index.search(queries, k)[1]
    return found


def compare(lists: Lists, passing: Mask, kind: str, nprobe: int) -> dict[str, Any]:
    """One filter at one setting."""
    rows, nlist = len(passing), lists.place.shape[1]
    count = int(passing.sum())
    bitmap = np.packbits(passing, bitorder="little")
    grown = reach_of(nprobe, nlist, RowFilter(bitmap, count, count / rows), 1.0).first
    return {
        "filter": kind,
        "selectivity": round(count / rows, 5),
        "nprobe": nprobe,
        "recall_same_nprobe": round(lists.recall(passing, nprobe), 4),
        "grown_lists": grown,
        "recall_grown": round(lists.recall(passing, grown), 4),
        "recall_unfiltered": round(lists.recall(np.ones(rows, bool), nprobe), 4),
    }


def run() -> dict[str, Any]:
    """Every filter at every setting, and the worst of them."""
    data = clustered(ROWS, DIM, seed=SEED, queries=QUERIES)
    note(f"training {NLIST} lists")
    lists = Lists.train(data, NLIST, SEED)
    rng = np.random.default_rng(SEED)
    points = []
    for share in SHARES:
        drawn = rng.choice(NLIST, max(1, int(NLIST * share)), replace=False)
        masks = {"rows": rng.random(ROWS) < share, "lists": np.isin(lists.list_of, drawn)}
        points += [compare(lists, m, kind, n) for kind, m in masks.items() for n in NPROBES]
    worst = min(points, key=lambda p: p["recall_grown"] - p["recall_unfiltered"])
    return {
        "worst_recall_lost_to_a_filter": round(
            max(0.0, worst["recall_unfiltered"] - worst["recall_grown"]), 4
        ),
        "worst_recall_at_the_same_nprobe": min(p["recall_same_nprobe"] for p in points),
        "rows": ROWS,
        "dim": DIM,
        "nlist": NLIST,
        "queries": QUERIES,
        "seed": SEED,
        "points": points,
    }


def main() -> None:
    given = options(__doc__ or "").parse_args()
    emit(run() | {"machine": machine()}, given)


if __name__ == "__main__":
    main()
