from __future__ import annotations

import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node import training, tuning
from retrieval_node.shard_files import IvfIndex
from tests.retrieval_node.making import clustered


def test_the_ladder_ends_with_every_list() -> None:
    assert tuning.ladder(1) == [1]
    assert tuning.ladder(10) == [1, 2, 3, 4, 6, 8, 10]
    assert tuning.ladder(64)[-2:] == [48, 64]


def _tuned(vectors: np.ndarray, metric: Metric, nlist: int, m: int, refine: bool) -> tuning.Tuned:
    centroids = training.train_centroids(vectors, nlist, metric, 1)
    lists = training.assign(vectors, centroids, metric)
    residuals = vectors - centroids[lists]
    codebooks = training.train_codebooks(residuals, m, 1)
    index = IvfIndex(centroids, codebooks, np.ascontiguousarray(codebooks.transpose(0, 2, 1)))
    codes = training.encoder(codebooks)(residuals)
    return tuning.tune(vectors, lists, codes, index, metric, refine, 1, len(vectors))


@pytest.mark.parametrize("metric", list(Metric))
def test_refinement_reaches_the_target(metric: Metric) -> None:
    vectors = clustered(2000, 16, 5, metric)
    tuned = _tuned(vectors, metric, nlist=24, m=4, refine=True)
    assert tuned.recall >= 0.985
    assert 1 < tuned.nprobe <= 24
    assert tuned.refine_factor is not None


def test_without_refinement_the_ceiling_of_the_codes_is_enough() -> None:
    vectors = clustered(1500, 16, 6)
    tuned = _tuned(vectors, Metric.L2, nlist=16, m=2, refine=False)
    assert tuned.refine_factor is None
    assert 0.1 < tuned.recall < 0.95
    assert 1 <= tuned.nprobe <= 16


def test_equal_vectors_count_as_found() -> None:
    vectors = np.ones((300, 4), dtype=np.float32)
    tuned = _tuned(vectors, Metric.L2, nlist=3, m=2, refine=True)
    assert tuned.recall == 1.0


def test_a_single_vector_needs_no_measuring() -> None:
    vectors = np.ones((1, 4), dtype=np.float32)
    assert _tuned(vectors, Metric.L2, nlist=1, m=2, refine=True).nprobe == 1
