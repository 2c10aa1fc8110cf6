"""The benchmarks' data: the same for one seed, clustered, with a decaying spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import datasets
from bench.datasets import Dataset, clustered, ground_truth, recall
from ragschema.errors import InvalidInput
from ragschema.types import Metric

SEED = 11


@pytest.fixture(scope="module")
def data() -> Dataset:
    return clustered(5000, 32, seed=SEED, queries=20, clusters=50)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(datasets, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_shapes_and_types(data: Dataset) -> None:
    assert data.base.shape == (5000, 32)
    assert data.queries.shape == (20, 32)
    assert data.base.dtype == data.queries.dtype == np.float32
    assert np.isfinite(data.base).all()


def test_one_seed_gives_one_data_set(data: Dataset) -> None:
    again = clustered(5000, 32, seed=SEED, queries=20, clusters=50)
    other = clustered(5000, 32, seed=SEED + 1, queries=20, clusters=50)
    assert np.array_equal(data.base, again.base)
    assert np.array_equal(data.queries, again.queries)
    assert not np.array_equal(data.base, other.base)


def test_the_seed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    clustered(10, 8, seed=4711, queries=1, clusters=2)
    assert "seed 4711" in capsys.readouterr().err


def test_chunks_do_not_repeat_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_CHUNK_ROWS", 100)
    drawn = clustered(1050, 16, seed=SEED, queries=60, clusters=5)
    rows = np.vstack([drawn.base, drawn.queries])
    assert len(np.unique(rows, axis=0)) == len(rows), f"seed {SEED}"


def test_the_spectrum_decays_within_a_cluster_and_overall(data: Dataset) -> None:
    one = clustered(2000, 32, seed=SEED, queries=1, clusters=1)
    for name, drawn, share in (("cluster", one, 0.8), ("all", data, 0.65)):
        spectrum = np.linalg.eigvalsh(np.cov(drawn.base.T))[::-1]
        assert spectrum[:8].sum() > share * spectrum.sum(), f"{name}, seed {SEED}"


def test_neighbours_are_nearer_than_in_a_cloud_without_clusters(data: Dataset) -> None:
    """Beside one Gaussian of the same covariance, nearest neighbours are closer."""
    rng = np.random.default_rng(SEED)
    cloud = rng.multivariate_normal(data.base.mean(axis=0), np.cov(data.base.T), 5020)
    plain = Dataset(cloud[20:].astype(np.float32), cloud[:20].astype(np.float32), SEED, 1)
    assert _nearest(data) < 0.9 * _nearest(plain), f"seed {SEED}"


def _nearest(data: Dataset) -> float:
    return float(_distances(data).min(axis=1).mean())


def _distances(data: Dataset) -> np.ndarray:
    apart = data.queries[:, None, :] - data.base[None, :, :]
    return np.asarray(np.linalg.norm(apart, axis=2))


def test_truth_is_exact_across_blocks(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_TRUTH_BLOCK_ROWS", 1234)
    wanted = np.argsort(_distances(data), axis=1)[:, :7]
    assert recall(ground_truth(data, 7), wanted) > 0.99


def test_truth_of_inner_products_has_the_largest_first(data: Dataset) -> None:
    wanted = np.argsort(-(data.queries @ data.base.T), axis=1)[:, :3]
    assert np.array_equal(ground_truth(data, 3, Metric.IP), wanted)


def test_truth_is_kept_by_data_set_metric_and_k(data: Dataset, cache: Path) -> None:
    first = ground_truth(data, 5)
    ground_truth(data, 4)
    ground_truth(data, 5, Metric.IP)
    assert len(list(cache.iterdir())) == 3
    kept = cache / f"{data.key}-l2-k5.npy"
    np.save(kept, first + 1)
    assert np.array_equal(ground_truth(data, 5), first + 1)


def test_recall_counts_shared_rows() -> None:
    truth = np.array([[1, 2], [3, 4]])
    assert recall(np.array([[2, 9], [4, 3]]), truth) == 0.75


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="queries"):
        clustered(10, seed=1, queries=0)


def test_k_beyond_the_base_is_refused(data: Dataset) -> None:
    with pytest.raises(InvalidInput, match="between 1 and 5000"):
        ground_truth(data, 5001)
