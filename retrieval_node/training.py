"""Training of an IVF-PQ index with faiss, on a bounded sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from ragschema.errors import InvalidInput
from ragschema.types import F32, I64, U8, Metric
from retrieval_node.fixedpoint import CODES
from retrieval_node.shard_files import IvfIndex, make_index

#: faiss warns below this many training points per centroid.
_POINTS_PER_LIST = 39
_SAMPLE_PER_LIST = 64
_MIN_SAMPLE = 1 << 16
_MAX_SAMPLE = 400_000
_KMEANS_ROUNDS = 20
_OPQ_ROUNDS = 20
_OPQ_SAMPLE = 1 << 15
_WIDEST_SUB = 8
_MOST_BYTES = 128
#: Steps ``train_index`` reports.
TRAIN_STEPS = 3


@dataclass(frozen=True)
class TrainPlan:
    """What to train.

    Attributes:
        nlist, m: lists and bytes per code, as ``check_shape`` gives them.
        opq: turn the space first so that the sub-vectors of a code share the load.
        residual: codes are of a vector minus its list's centroid.
    """

    nlist: int
    m: int
    seed: int
    opq: bool = False
    residual: bool = True


def choose_nlist(n: int) -> int:
    """About 4 sqrt(n), but at least 39 vectors per list."""
    return max(1, min(round(4 * math.sqrt(n)), n // _POINTS_PER_LIST))


def choose_m(dim: int) -> int:
    """Bytes per code: the widest sub-vectors of at most 8 components that divide
    the dimension; wider ones where that would take more than 128 bytes."""
    divisors = [m for m in range(1, dim + 1) if dim % m == 0]
    fine = [m for m in divisors if dim // m <= _WIDEST_SUB]
    small = [m for m in fine if m <= _MOST_BYTES]
    if small:
        return small[0]
    # Only very wide or awkward dimensions come here.
    coarse = [m for m in divisors if 2 * _WIDEST_SUB <= m <= _MOST_BYTES]
    return coarse[-1] if coarse else fine[0]


def check_shape(n: int, dim: int, nlist: int | None, m: int | None) -> tuple[int, int]:
    """The nlist and m to train, chosen where they are None.

    Raises:
        InvalidInput: more lists than vectors, or m does not divide dim.
    """
    if nlist is not None and nlist > n:
        raise InvalidInput(
            f"{nlist} lists for {n} vectors",
            field="index.train.nlist",
            hint=f"use at most {n}; {choose_nlist(n)} suits this collection",
        )
    if m is not None and dim % m:
        near = [d for d in range(1, dim + 1) if dim % d == 0]
        near.sort(key=lambda d: abs(d - m))
        raise InvalidInput(
            f"{m} does not divide dimension {dim}",
            field="index.train.m",
            hint=f"use {near[0]}" + (f" or {near[1]}" if len(near) > 1 else ""),
        )
    return nlist or choose_nlist(n), m or choose_m(dim)


def sample_rows(n: int, nlist: int, seed: int) -> I64:
    """Ascending row numbers to train on."""
    size = min(n, _MAX_SAMPLE, max(_MIN_SAMPLE, _SAMPLE_PER_LIST * nlist))
    if size == n:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False)).astype(np.int64)


def train_index(
    sample: F32, metric: Metric, plan: TrainPlan, progress: Callable[[int], None]
) -> IvfIndex:
    """Everything of an index: rotation, centroids, codebooks and shift.

    Args:
        sample: float32 [n, dim], n > 0; unit length where the metric is cosine.
        progress: called with the number of steps done, up to ``TRAIN_STEPS``.
    """
    rotation = train_rotation(sample, plan.m, plan.seed) if plan.opq else None
    turned = sample
    if rotation is not None:
        turned = (sample.astype(np.float64) @ rotation.T.astype(np.float64)).astype(np.float32)
    progress(1)
    centroids = train_centroids(turned, plan.nlist, metric, plan.seed)
    progress(2)
    coded = turned
    if plan.residual:
        coded = turned - centroids[assign(turned, centroids, metric)]
    shuffled = np.random.default_rng(plan.seed).permutation(len(coded))
    codebooks = train_codebooks(coded[shuffled[:_MIN_SAMPLE]], plan.m, plan.seed)
    index = make_index(metric, centroids, codebooks, residual=plan.residual, rotation=rotation)
    progress(TRAIN_STEPS)
    return index


def train_rotation(sample: F32, m: int, seed: int) -> F32:
    """The OPQ rotation of codes of m bytes: float32 [dim, dim], orthonormal rows."""
    n, dim = sample.shape
    chosen = np.random.default_rng(seed).permutation(n)[:_OPQ_SAMPLE]
    some = sample[chosen]
    if n < CODES:
        some = np.resize(some, (CODES, dim))
    quantizer = faiss.ProductQuantizer(dim, m, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1
    trained = faiss.OPQMatrix(dim, m)
    trained.niter = _OPQ_ROUNDS
    trained.pq = quantizer
    trained.train(np.ascontiguousarray(some))
    rotation = faiss.vector_to_array(trained.A).reshape(dim, dim)
    return np.ascontiguousarray(rotation, dtype=np.float32)


def train_centroids(sample: F32, nlist: int, metric: Metric, seed: int) -> F32:
    """k-means centroids: float32 [nlist, dim].

    For inner products k-means is spherical. All centroids are then stretched by
    one factor, which changes no ranking of lists and makes residuals shortest.
    """
    spherical = metric is not Metric.L2
    kmeans = faiss.Kmeans(
        sample.shape[1],
        nlist,
        niter=_KMEANS_ROUNDS,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=max(_SAMPLE_PER_LIST * 4, 256),
    )
    kmeans.train(sample)
    centroids: F32 = np.ascontiguousarray(kmeans.centroids, dtype=np.float32)
    if spherical:
        nearest = assign(sample, centroids, metric)
        along = np.einsum("ij,ij->i", sample, centroids[nearest], dtype=np.float64)
        lengths = np.einsum("ij,ij->i", centroids, centroids, dtype=np.float64)[nearest]
        if along.sum() > 0 and lengths.sum() > 0:
            centroids *= np.float32(along.sum() / lengths.sum())
    return centroids


def train_codebooks(residuals: F32, m: int, seed: int) -> F32:
    """PQ codebooks of residuals: float32 [m, 256, dim / m]."""
    n, dim = residuals.shape
    if n < CODES:
        # Too few for k-means: let every vector be a code of its own.
        residuals = np.resize(residuals, (CODES, dim))
    quantizer = faiss.ProductQuantizer(dim, m, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(np.ascontiguousarray(residuals[:_MIN_SAMPLE]))
    flat = faiss.vector_to_array(quantizer.centroids)
    return np.ascontiguousarray(flat.reshape(m, CODES, dim // m), dtype=np.float32)


def assign(vectors: F32, centroids: F32, metric: Metric) -> I64:
    """The list of each vector: nearest centroid, or the largest inner product."""
    kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    _, nearest = faiss.knn(vectors, centroids, 1, metric=kind)
    return np.asarray(nearest[:, 0], dtype=np.int64)


def encoder(codebooks: F32) -> Callable[[F32], U8]:
    """A function from residuals [n, dim] to codes uint8 [n, m]."""
    m, _, sub = codebooks.shape
    quantizer = faiss.ProductQuantizer(m * sub, m, 8)
    faiss.copy_array_to_vector(codebooks.reshape(-1), quantizer.centroids)

    def encode(residuals: F32) -> U8:
        return np.asarray(quantizer.compute_codes(residuals), dtype=np.uint8)

    return encode
