"""Vectors for benchmarks: clustered, with a decaying spectrum, the same for one seed.

Uniform vectors have no neighbours worth finding, and tight balls have all of
them in one list; embeddings of real text lie between. ``clustered`` draws from a
mixture that shows what embeddings show:

* clusters of different sizes: the r-th largest has a share ~ 1 / r^0.3;
* one decaying spectrum: the i-th standard deviation of the cluster centres
  ~ 1 / (1 + i / 2)^0.5, in a randomly rotated basis;
* covariances of their own: within a cluster the spectrum is steeper (exponent 1),
  each direction times a factor of the cluster's own (0.5 to 1.5), and a cluster is
  about as wide as the spread of the centres (0.8 to 1.2 times), so clusters overlap
  and a query's neighbours lie in several lists.

With 1M rows of 128 dimensions, nlist 1024 and 16-byte codes, lists are about as
even as k-means makes them of real embeddings (imbalance factor 1.2), and recall@10
of IVF-PQ grows until some 32 lists and then stays at a ceiling of about .64, which
only rescoring lifts.

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
_SIZE_EXPONENT = 0.3
_CENTRE_EXPONENT = 0.5
_WITHIN_EXPONENT = 1.0
_KNEE = 2.0
_CLUSTER_WIDTH = (0.8, 1.2)
_OWN = (0.5, 1.5)


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
        n, dim = self.base.shape  # the 2 is the version of the generator
        return f"clustered2-{n}x{dim}-q{len(self.queries)}-c{self.clusters}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class _Mixture:
    """The distribution.

    Attributes:
        weights: float64 [c].
        centres: float32 [c, dim], before the rotation.
        scales: float32 [c, dim], standard deviations around each centre.
        rotation: float32 [dim, dim].
    """

    weights: NDArray[np.float64]
    centres: F32
    scales: F32
    rotation: F32

    def draw(self, rows: int, seed: np.random.SeedSequence) -> F32:
        """float32 [rows, dim], clusters in random order."""
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(self.weights), size=rows, p=self.weights)
        drawn = rng.standard_normal((rows, self.centres.shape[1]), dtype=np.float32)
        drawn *= self.scales[labels]
        drawn += self.centres[labels]
        return drawn @ self.rotation


def clustered(
    n: int, dim: int = 128, *, seed: int, queries: int = 1000, clusters: int = 1024
) -> Dataset:
    """Draws a base of ``n`` vectors and queries of the same distribution.

    The mixture does not depend on ``n``.

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
    centres = rng.standard_normal((clusters, dim)) * _decay(dim, _CENTRE_EXPONENT)
    widths = rng.uniform(*_CLUSTER_WIDTH, size=(clusters, 1))
    scales = widths * _decay(dim, _WITHIN_EXPONENT) * rng.uniform(*_OWN, size=(clusters, dim))
    return _Mixture(
        weights / weights.sum(),
        centres.astype(np.float32),
        scales.astype(np.float32),
        _rotation(dim, rng).astype(np.float32),
    )


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
