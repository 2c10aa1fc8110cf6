from __future__ import annotations

import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node import training, tuning
from retrieval_node.encode import Encoder
from tests.retrieval_node.making import clustered


def _tuned(vectors: np.ndarray, metric: Metric, nlist: int, m: int, refine: bool) -> tuning.Tuned:
    plan = training.TrainPlan(nlist, m, seed=1)
    index = training.train_index(vectors, metric, plan, lambda _: None)
    lists, codes = Encoder(index)(vectors)
    return tuning.tune(vectors, lists, codes, index, metric, refine, 1, len(vectors))


@pytest.mark.parametrize("metric", list(Metric))
def test_refinement_reaches_the_target(metric: Metric) -> None:
    vectors = clustered(2000, 16, 5, metric)
    tuned = _tuned(vectors, metric, nlist=24, m=4, refine=True)
    assert tuned.recall >= 0.985
    assert 1 < tuned.nprobe <= 24
    assert tuned.refine_factor is not None


def test_the_choice_is_a_point_of_the_curve() -> None:
    tuned = _tuned(clustered(1500, 16, 8), Metric.L2, nlist=16, m=4, refine=True)
    chosen = [
        p for p in tuned.curve if (p.nprobe, p.refine_factor) == (tuned.nprobe, tuned.refine_factor)
    ]
    assert [p.recall_at_10 for p in chosen] == [tuned.recall]
    assert {p.refine_factor for p in tuned.curve} >= {None, 2, 16}
    assert max(p.nprobe for p in tuned.curve) == tuned.nprobe, "nothing is tried beyond enough"


def test_a_sample_is_charged_for_the_whole() -> None:
    vectors = clustered(1000, 16, 9)
    plan = training.TrainPlan(8, 4, seed=1)
    index = training.train_index(vectors, Metric.L2, plan, lambda _: None)
    lists, codes = Encoder(index)(vectors)
    small, large = (
        tuning.tune(vectors, lists, codes, index, Metric.L2, False, 1, whole).curve[0]
        for whole in (1000, 50_000)
    )
    assert large.codes_per_query == pytest.approx(50 * small.codes_per_query)
    assert large.recall_at_10 == small.recall_at_10


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
