"""Vectors for benchmarks: clustered, with a decaying spectrum, the same for one seed.

Uniform vectors have no neighbours worth finding, and tight balls have all of
them in one list; embeddings of real text lie between. ``clustered`` draws from a
mixture that shows what embeddings show:

* clusters of very different sizes: the r-th largest has a share ~ 1 / r^0.6;
* cluster centres with a decaying spectrum in one common basis: the i-th standard
  deviation ~ 1 / (1 + i / 2)^0.5, so that a few directions tell topics apart;
* within a cluster a steeper decay (exponent 1) in a basis of its own, a random
  rotation, and a size of its own: 1.2 to 2.3 times the spread of the centres, so
  clusters overlap and a query's neighbours lie in several lists.

One million rows of 128 dimensions, nlist 1024 and 16-byte codes then give an
IVF-PQ recall@10 of about .61 / .63 / .64 at nprobe 8 / 32 / 128: what such codes
give on real embeddings, with a ceiling that more lists do not lift.

Queries come from the same mixture and are not in the base. Everything is drawn in
chunks, each from a generator of its own (``SeedSequence.spawn``), so memory stays
at the result plus one chunk and threads do not change a number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import note
from ragschema.errors import InvalidInput
from ragschema.types import F32, I64, Metric

#: Where benchmarks keep what takes long to compute; not in version control.
CACHE = Path("build/bench")

_CHUNK_ROWS = 65_536
_TRUTH_BLOCK_ROWS = 65_536
_SIZE_EXPONENT = 0.6
_CENTRE_EXPONENT = 0.5
_WITHIN_EXPONENT = 1.0
_KNEE = 2.0
_CLUSTER_SCALE = (1.2, 2.3)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A base to search and queries that are not in it.

    Attributes:
        base: float32 [n, dim].
        queries: float32 [queries, dim].
        seed: what both were drawn from.
        clusters: how many clusters the mixture has.
    """

    base: F32
    queries: F32
    seed: int
    clusters: int

    @property
    def key(self) -> str:
        """A name for files of this data set's cache."""
        n, dim = self.base.shape
        return f"clustered-{n}x{dim}-q{len(self.queries)}-c{self.clusters}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class _Mixture:
    """The distribution: weights float64 [c], centres float32 [c, dim], shapes [c, dim, dim]."""

    weights: NDArray[np.float64]
    centres: F32
    shapes: F32

    def draw(self, rows: int, seed: np.random.SeedSequence) -> F32:
        """float32 [rows, dim], in random order of clusters."""
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(self.weights), size=rows, p=self.weights)
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=len(self.weights)))
        noise = rng.standard_normal((rows, self.centres.shape[1]), dtype=np.float32)
        out = np.empty_like(noise)
        first = 0
        for cluster, end in enumerate(ends.tolist()):
            if end > first:
                drawn = noise[first:end] @ self.shapes[cluster]
                out[order[first:end]] = drawn + self.centres[cluster]
            first = end
        return out


def clustered(
    n: int, dim: int = 128, *, seed: int, queries: int = 1000, clusters: int = 2048
) -> Dataset:
    """Draws a base of ``n`` vectors and queries of the same distribution.

    The mixture does not depend on ``n``; it takes 4 * clusters * dim^2 bytes while
    it is drawn from, so ask for fewer clusters of more than some 256 dimensions.

    Raises:
        InvalidInput: a count below 1.
    """
    counts = {"n": n, "dim": dim, "queries": queries, "clusters": clusters}
    for name, value in counts.items():
        if value < 1:
            raise InvalidInput(f"{name} must be at least 1, not {value}", field=name)
    note(f"drawing {n} x {dim} in {clusters} clusters, seed {seed}")
    mixture_seed, query_seed, base_seed = np.random.SeedSequence(seed).spawn(3)
    mixture = _mixture(dim, clusters, mixture_seed)
    base = np.empty((n, dim), dtype=np.float32)
    starts = range(0, n, _CHUNK_ROWS)

    def fill(start: int, chunk_seed: np.random.SeedSequence) -> None:
        stop = min(start + _CHUNK_ROWS, n)
        base[start:stop] = mixture.draw(stop - start, chunk_seed)

    with ThreadPoolExecutor(max_workers=2) as threads:
        list(threads.map(fill, starts, base_seed.spawn(len(starts))))
    return Dataset(base, mixture.draw(queries, query_seed), seed, clusters)


def _mixture(dim: int, clusters: int, seed: np.random.SeedSequence) -> _Mixture:
    rng = np.random.default_rng(seed)
    weights = np.arange(1, clusters + 1, dtype=np.float64) ** -_SIZE_EXPONENT
    centre_scale = _decay(dim, _CENTRE_EXPONENT)
    centres = (rng.standard_normal((clusters, dim)) * centre_scale) @ _rotation(dim, rng)
    within_scale = _decay(dim, _WITHIN_EXPONENT)
    sizes = rng.uniform(*_CLUSTER_SCALE, size=clusters)
    shapes = np.empty((clusters, dim, dim), dtype=np.float32)
    for cluster in range(clusters):
        shapes[cluster] = (sizes[cluster] * within_scale)[:, None] * _rotation(dim, rng)
    return _Mixture(weights / weights.sum(), centres.astype(np.float32), shapes)


def _decay(dim: int, exponent: float) -> NDArray[np.float64]:
    """Standard deviations by direction, of total variance 1."""
    scale = np.asarray((1.0 + np.arange(dim) / _KNEE) ** -exponent, dtype=np.float64)
    return scale / np.linalg.norm(scale)


def _rotation(dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random orthogonal basis: [dim, dim]."""
    basis: NDArray[np.float64] = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return basis


def ground_truth(dataset: Dataset, k: int, metric: Metric = Metric.L2) -> I64:
    """Exact nearest rows by faiss, nearest first: int64 [queries, k].

    Kept under ``build/bench``. Cosine expects vectors of unit length.

    Raises:
        InvalidInput: ``k`` is not between 1 and the rows of the base.
    """
    if not 1 <= k <= len(dataset.base):
        limit = len(dataset.base)
        raise InvalidInput(f"k must lie between 1 and {limit}, not {k}", field="k")
    cached = CACHE / f"{dataset.key}-{metric.value}-k{k}.npy"
    if cached.exists():
        found: I64 = np.load(cached, allow_pickle=False)
        return found
    note(f"searching {len(dataset.base)} vectors exactly for {len(dataset.queries)} queries")
    found = _search_exactly(dataset, k, metric)
    CACHE.mkdir(parents=True, exist_ok=True)
    np.save(cached, found)
    return found


def _search_exactly(dataset: Dataset, k: int, metric: Metric) -> I64:
    import faiss

    kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    heap: Any = faiss.ResultHeap(len(dataset.queries), k, keep_max=metric is not Metric.L2)
    for start in range(0, len(dataset.base), _TRUTH_BLOCK_ROWS):
        block = dataset.base[start : start + _TRUTH_BLOCK_ROWS]
        distances, rows = faiss.knn(dataset.queries, block, min(k, len(block)), metric=kind)
        heap.add_result(distances, rows + start)
    heap.finalize()
    return np.asarray(heap.I, dtype=np.int64)


def recall(found: I64, truth: I64) -> float:
    """Mean share of each query's true rows among those found; both [n, k]."""
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1)
    return float(hits.mean())
