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


def test_a_rotation_turns_and_stretches_nothing() -> None:
    rotation = training.train_rotation(clustered(600, 16, 5), 4, seed=1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(16), atol=1e-5)
    again = training.train_rotation(clustered(600, 16, 5), 4, seed=1)
    np.testing.assert_array_equal(rotation, again)


def _lost(opq: bool) -> float:
    """Squared error of coding vectors whose variance sits in a few components."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(3000, 16)) * np.geomspace(8, 0.05, 16)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    plan = training.TrainPlan(4, 4, seed=1, opq=opq, residual=False)
    index = training.train_index(vectors, Metric.L2, plan, lambda _: None)
    turned = index.rotate(vectors)
    codes = training.encoder(index.codebooks)(turned)
    decoded = index.codebooks[np.arange(4)[None, :], codes].reshape(3000, 16)
    return float(((turned - decoded) ** 2).sum())


def test_a_rotation_makes_codes_more_faithful() -> None:
    assert _lost(opq=True) < 0.8 * _lost(opq=False)


def test_training_reports_its_steps_and_obeys_its_plan() -> None:
    steps: list[int] = []
    vectors = clustered(500, 8, 3)
    plan = training.TrainPlan(5, 2, seed=1, residual=False)
    index = training.train_index(vectors, Metric.IP, plan, steps.append)
    assert steps == [1, 2, training.TRAIN_STEPS]
    assert (index.nlist, index.m, index.residual, index.rotation) == (5, 2, False, None)
    assert not index.shift.any(), "whole vectors need no shift"
