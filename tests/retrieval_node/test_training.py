from __future__ import annotations

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.types import Metric
from retrieval_node import training
from tests.retrieval_node.making import clustered


def test_lists_hold_enough_vectors_to_train_on() -> None:
    assert training.choose_nlist(1000) == 25
    assert training.choose_nlist(1_000_000) == 4000
    assert training.choose_nlist(5) == 1
    for n in (1000, 5000, 40_000, 2_000_000):
        assert n / training.choose_nlist(n) >= 39


@pytest.mark.parametrize(
    ("dim", "m"),
    [(384, 48), (768, 96), (1024, 128), (1536, 128), (1, 1), (7, 1), (13, 13), (16, 2)],
)
def test_code_size_by_dimension(dim: int, m: int) -> None:
    assert training.choose_m(dim) == m


def test_every_dimension_has_a_valid_code_size() -> None:
    for dim in range(1, 3000):
        m = training.choose_m(dim)
        assert dim % m == 0, dim


def test_settings_that_do_not_fit_name_the_fix() -> None:
    with pytest.raises(InvalidInput) as caught:
        training.check_shape(1000, 384, None, 50)
    assert caught.value.field == "index.train.m"
    assert "48" in (caught.value.hint or "")
    with pytest.raises(InvalidInput) as caught:
        training.check_shape(1000, 384, 1001, None)
    assert caught.value.field == "index.train.nlist"
    assert training.check_shape(1000, 384, 10, 96) == (10, 96)


def test_the_sample_is_bounded_and_repeatable() -> None:
    rows = training.sample_rows(3_000_000, 6928, seed=3)
    assert len(rows) == 400_000
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, training.sample_rows(3_000_000, 6928, seed=3))
    assert len(training.sample_rows(500, 10, seed=3)) == 500


def test_a_seed_gives_the_same_index() -> None:
    vectors = clustered(500, 16, 2)
    a, b = (training.train_centroids(vectors, 8, Metric.L2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    a, b = (training.train_codebooks(vectors, 4, seed=5) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_vectors_go_to_the_list_their_metric_prefers() -> None:
    centroids = np.array([[1.0, 0.0], [10.0, 0.0]], dtype=np.float32)
    vectors = np.array([[1.5, 0.0]], dtype=np.float32)
    assert training.assign(vectors, centroids, Metric.L2).tolist() == [0]
    assert training.assign(vectors, centroids, Metric.IP).tolist() == [1]


@pytest.mark.parametrize("metric", list(Metric))
def test_codes_are_of_residuals_and_come_near(metric: Metric) -> None:
    vectors = clustered(2000, 16, 3, metric)
    centroids = training.train_centroids(vectors, 10, metric, seed=1)
    residuals = vectors - centroids[training.assign(vectors, centroids, metric)]
    codebooks = training.train_codebooks(residuals, 8, seed=1)
    codes = training.encoder(codebooks)(residuals)
    decoded = codebooks[np.arange(8)[None, :], codes].reshape(2000, 16)
    lost = np.linalg.norm(residuals - decoded) / np.linalg.norm(residuals)
    assert lost < 0.3
    shortest = np.linalg.norm(residuals) / np.linalg.norm(vectors)
    assert shortest < 0.9, "centroids do not take anything away"


def test_fewer_vectors_than_codes_are_kept_exactly() -> None:
    residuals = clustered(40, 8, 4)
    codebooks = training.train_codebooks(residuals, 2, seed=1)
    codes = training.encoder(codebooks)(residuals)
    decoded = codebooks[np.arange(2)[None, :], codes].reshape(40, 8)
    np.testing.assert_allclose(decoded, residuals, atol=1e-6)
