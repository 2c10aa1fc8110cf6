"""Choosing nprobe and the refine factor of a new index by measured recall.

Queries are vectors of the collection, each excluded from its own answer, and
points halfway between two of them, which lie off the data as questions do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import faiss
import numpy as np

from ragschema.storage.manifest import CurvePoint
from ragschema.types import F32, I64, U8, Metric, SnapshotId
from retrieval_node import measure
from retrieval_node.bias import BiasEncoder
from retrieval_node.engine import SearchEngine
from retrieval_node.layout import group_codes
from retrieval_node.measure import CURVE_K, Questions
from retrieval_node.scanner import open_scanner
from retrieval_node.segment import SegmentRows, segment_in_memory
from retrieval_node.shard import LoadedShard, ShardSet
from retrieval_node.shard_files import IvfIndex

#: Questions lie farther from the data than these queries do; measured on
#: sentence embeddings, real questions lose up to two points of recall more.
#: Margin is cheap in a small collection, so a small one gets more of it.
_SMALL = 100_000
_TARGETS_SMALL = (0.995, 0.99)
_TARGETS_LARGE = (0.985, 0.98)
#: Without refinement, the share of the highest recall that is enough.
_OF_CEILING = 0.995
_QUERIES = 128
#: Of the ladder: at most 6 144 lists are ever probed by default.
_MOST_STEPS = 25
_FEWEST_FACTOR = 2


@dataclass(frozen=True)
class Tuned:
    """Settings, the recall@10 that was measured with them, and all that was measured."""

    nprobe: int
    refine_factor: int | None
    recall: float
    curve: tuple[CurvePoint, ...] = ()


def tune(
    vectors: F32, list_of: I64, codes: U8, index: IvfIndex, metric: Metric, refine: bool, seed: int,
    whole: int,
) -> Tuned:  # fmt: skip
    """Smallest nprobe, then smallest refine factor, that reach their targets.

    Without refinement the recall of PQ codes has a ceiling; the smallest nprobe
    within half a percent of it is taken.

    Args:
        vectors: float32 [n, input dim]; list_of, codes: how they are stored.
        whole: vectors in the collection, of which these are a sample.
    """
    k = min(CURVE_K, len(vectors) - 1)
    if k < 1:
        return Tuned(index.nlist, _FEWEST_FACTOR if refine else None, 1.0)
    questions = _questions(vectors, metric, seed, k)
    shard_set = _in_memory(vectors, list_of, codes, index, metric)
    engine = SearchEngine(open_scanner(1))
    engine.load(shard_set)
    try:
        probing, refining = _TARGETS_SMALL if whole <= _SMALL else _TARGETS_LARGE
        curve = measure.curve(
            shard_set,
            lambda batch: engine.search(shard_set, batch),
            questions,
            refine=refine,
            steps=measure.ladder(index.nlist)[:_MOST_STEPS],
            enough=probing if refine else 1.0,
            codes_scale=whole / len(vectors),
        )
    finally:
        engine.backend.close()
    return _chosen(curve, probing if refine else None, refining)


def _chosen(curve: Sequence[CurvePoint], probing: float | None, refining: float) -> Tuned:
    """``probing``: recall wanted with the largest factor; None: without refinement."""
    steps = [list(points) for _, points in groupby(curve, key=lambda p: p.nprobe)]
    ceiling = max(points[-1].recall_at_10 for points in steps)
    wanted = ceiling * _OF_CEILING if probing is None else min(probing, ceiling)
    points = next(points for points in steps if points[-1].recall_at_10 >= wanted)
    if probing is None:
        best = points[-1]
    else:
        enough = min(refining, points[-1].recall_at_10)
        best = next(p for p in points if p.refine_factor is not None and p.recall_at_10 >= enough)
    return Tuned(best.nprobe, best.refine_factor, best.recall_at_10, tuple(curve))


def _questions(vectors: F32, metric: Metric, seed: int, k: int) -> list[Questions]:
    n = len(vectors)
    rng = np.random.default_rng(seed)
    own = rng.choice(n, min(_QUERIES, n), replace=False).astype(np.int64)
    pairs = rng.choice(n, (len(own), 2))
    between = (vectors[pairs[:, 0]] + vectors[pairs[:, 1]]) / np.float32(2)
    if metric is Metric.COSINE:
        between /= np.maximum(np.linalg.norm(between, axis=1, keepdims=True), np.float32(1e-12))
    nobody = np.full(len(between), -1, dtype=np.int64)
    kinds = ((vectors[own], own), (np.ascontiguousarray(between, dtype=np.float32), nobody))
    return [_asked(vectors, queries, rows, metric, k) for queries, rows in kinds]


def _asked(vectors: F32, queries: F32, own: I64, metric: Metric, k: int) -> Questions:
    kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    width = min(measure.width_for(k), len(vectors))
    keys, rows = faiss.knn(np.ascontiguousarray(queries), vectors, width, metric=kind)
    distances = keys if metric is Metric.L2 else -keys
    counts = np.full(len(queries), width, dtype=np.int32)
    return measure.questions_of(queries, own, distances, rows.astype(np.int64), counts, k)


def _in_memory(vectors: F32, list_of: I64, codes: U8, index: IvfIndex, metric: Metric) -> ShardSet:
    return ShardSet(
        snapshot=SnapshotId("tuning", 1),
        metric=metric,
        dim=vectors.shape[1],
        num_shards=1,
        next_row_id=len(vectors),
        index=index,
        refine=False,
        live=None,
        shards={0: LoadedShard((_segment(list_of, codes, index),), len(vectors))},
    )


def _segment(list_of: I64, codes: U8, index: IvfIndex) -> SegmentRows:
    order = np.argsort(list_of, kind="stable")
    offsets = np.zeros(index.nlist + 1, dtype=np.int64)
    np.cumsum(np.bincount(list_of, minlength=index.nlist), out=offsets[1:])
    by_list = np.ascontiguousarray(codes[order])
    bias = affine = None
    if index.metric is Metric.L2:
        encoder = BiasEncoder(index)
        affine = np.zeros((index.nlist, 2), dtype=np.float32)
        terms = [np.zeros(0, dtype=np.uint16)]
        for number in np.flatnonzero(np.diff(offsets)).tolist():
            mine = slice(offsets[number], offsets[number + 1])
            placed = encoder.order(number, by_list[mine])
            order[mine], by_list[mine] = order[mine][placed], by_list[mine][placed]
            some, affine[number] = encoder.encode(number, by_list[mine])
            terms.append(some)
        bias = np.concatenate(terms)
    return segment_in_memory(
        index, offsets, order.astype(np.uint32), group_codes(by_list, offsets), bias, affine, None,
        len(codes),
    )  # fmt: skip
