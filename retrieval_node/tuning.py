"""Choosing nprobe and the refine factor by measured recall.

Queries are vectors of the collection, each excluded from its own answer, and
points halfway between two of them, which lie off the data as questions do.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from ragschema.types import F32, I64, U8, Metric, SnapshotId
from retrieval_node.backends.base import ScanRequest
from retrieval_node.backends.faiss_backend import FaissBackend
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import LoadedShard, ShardSet, make_rows
from retrieval_node.shard_files import IvfIndex

#: Questions lie farther from the data than these queries do; measured on
#: sentence embeddings, real questions lose up to two points of recall more.
#: Margin is cheap in a small collection, so a small one gets more of it.
_SMALL = 100_000
_TARGETS_SMALL = (0.995, 0.99)
_TARGETS_LARGE = (0.985, 0.98)
_K = 10
_QUERIES = 128
_FACTORS = (2, 4, 6, 8, 12, 16)
#: Of the ladder: at most 6 144 lists are ever probed by default.
_MOST_STEPS = 25


@dataclass(frozen=True)
class Tuned:
    """Settings, and the recall@10 that was measured with them."""

    nprobe: int
    refine_factor: int | None
    recall: float


@dataclass(frozen=True)
class _Truth:
    """Queries, the row each was taken from (-1: none), and the distance of the
    k-th true neighbour."""

    queries: F32
    own: I64
    border: F32
    k: int


def ladder(nlist: int) -> list[int]:
    """Values of nprobe to try, ascending, ending with all lists."""
    steps = [s for e in range(20) for s in (1 << e, 3 << e >> 1) if s and s < nlist]
    return [*sorted(set(steps)), nlist]


def tune(
    vectors: F32, list_of: I64, codes: U8, index: IvfIndex, metric: Metric, refine: bool, seed: int,
    whole: int,
) -> Tuned:  # fmt: skip
    """Smallest nprobe, then smallest refine factor, that reach their targets.

    Without refinement the recall of PQ codes has a ceiling; the smallest nprobe
    within half a percent of it is taken.

    Args:
        vectors: float32 [n, dim]; list_of, codes: how they are stored.
        whole: vectors in the collection, of which these are a sample.
    """
    truth = _truth(vectors, metric, seed)
    if truth is None:
        return Tuned(index.nlist, _FACTORS[0] if refine else None, 1.0)
    shard_set = _in_memory(vectors, list_of, codes, index, metric)
    backend = FaissBackend()
    backend.load(shard_set)
    deepest = truth.k * _FACTORS[-1] if refine else truth.k
    probing, refining = _TARGETS_SMALL if whole <= _SMALL else _TARGETS_LARGE
    curves: list[tuple[int, list[float]]] = []
    for step in ladder(index.nlist)[:_MOST_STEPS]:
        curves.append((step, _recalls(backend, shard_set, vectors, truth, step, deepest, refine)))
        if refine and curves[-1][1][-1] >= probing:
            break
    ceiling = max(recalls[-1] for _, recalls in curves)
    wanted = min(probing, ceiling) if refine else ceiling * 0.995
    nprobe, recalls = next((n, r) for n, r in curves if r[-1] >= wanted)
    if not refine:
        return Tuned(nprobe, None, recalls[-1])
    at = next(i for i, value in enumerate(recalls) if value >= min(refining, recalls[-1]))
    return Tuned(nprobe, _FACTORS[at], recalls[at])


def _truth(vectors: F32, metric: Metric, seed: int) -> _Truth | None:
    n = len(vectors)
    k = min(_K, n - 1)
    if k < 1:
        return None
    rng = np.random.default_rng(seed)
    own = rng.choice(n, min(_QUERIES, n), replace=False).astype(np.int64)
    pairs = rng.choice(n, (len(own), 2))
    between = (vectors[pairs[:, 0]] + vectors[pairs[:, 1]]) / np.float32(2)
    if metric is Metric.COSINE:
        between /= np.maximum(np.linalg.norm(between, axis=1, keepdims=True), np.float32(1e-12))
    queries = np.ascontiguousarray(np.concatenate([vectors[own], between]), dtype=np.float32)
    kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    keys, rows = faiss.knn(queries, vectors, k + 1, metric=kind)
    own = np.concatenate([own, np.full(len(between), -1, dtype=np.int64)])
    found = np.where(rows == own[:, None], np.inf, keys if metric is Metric.L2 else -keys)
    border = np.sort(found, axis=1)[:, k - 1].astype(np.float32)
    return _Truth(queries, own, border, k)


def _in_memory(vectors: F32, list_of: I64, codes: U8, index: IvfIndex, metric: Metric) -> ShardSet:
    order = np.argsort(list_of, kind="stable")
    offsets = np.zeros(index.nlist + 1, dtype=np.int64)
    np.cumsum(np.bincount(list_of, minlength=index.nlist), out=offsets[1:])
    rows = make_rows(order.astype(np.int64), offsets, codes[order], None)
    return ShardSet(
        snapshot=SnapshotId("tuning", 1),
        metric=metric,
        dim=vectors.shape[1],
        num_shards=1,
        next_row_id=len(vectors),
        index=index,
        refine=False,
        live=None,
        shards={0: LoadedShard(rows, np.zeros(0, dtype=np.uint8), len(vectors))},
    )


def _recalls(
    backend: FaissBackend,
    shard_set: ShardSet,
    vectors: F32,
    truth: _Truth,
    nprobe: int,
    deepest: int,
    refine: bool,
) -> list[float]:
    """Recall per refine factor; the worse of the two kinds of queries."""
    index = shard_set.index
    assert index is not None, "tuning has an index"
    n = len(truth.queries)
    lists = nearest_lists(truth.queries, index.centroids, shard_set.metric, nprobe)
    found = backend.scan(
        shard_set,
        ScanRequest(
            shards=(0,),
            queries=truth.queries,
            lists=lists.reshape(-1).astype(np.int64),
            starts=np.arange(n + 1, dtype=np.int64) * lists.shape[1],
            k=min(deepest + 1, len(vectors)),
            filters=np.zeros((1, 1), dtype=np.uint8),
            filter_of=np.full(n, -1, dtype=np.int32),
        ),
    )
    hits = _hits(found.rows, found.counts, vectors, truth, shard_set.metric)
    depths = [truth.k * f for f in _FACTORS] if refine else [truth.k]
    kinds = (truth.own >= 0, truth.own < 0)
    per_query = [np.minimum(hits[:, :d].sum(axis=1), truth.k) / truth.k for d in depths]
    return [min(float(r[kind].mean()) for kind in kinds if kind.any()) for r in per_query]


def _hits(
    rows: I64, counts: np.ndarray[tuple[int], np.dtype[np.int32]], vectors: F32, truth: _Truth,
    metric: Metric,
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:  # fmt: skip
    """Which candidates, in scan order and without the query's own row, are true."""
    hits = np.zeros((rows.shape[0], rows.shape[1]), dtype=bool)
    for q, query in enumerate(truth.queries):
        own = rows[q, : counts[q]]
        own = own[own != truth.own[q]]
        if metric is Metric.L2:
            distances = ((vectors[own] - query) ** 2).sum(axis=1)
        else:
            distances = -(vectors[own] @ query)
        slack = 1e-5 * max(abs(float(truth.border[q])), 1e-12)
        hits[q, : len(own)] = distances <= truth.border[q] + slack
    return hits
