"""The coarse search is exact, whatever path it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages import probe
from coordinator.stages.probe import CoarseIndex, ProbeStage
from ragschema.types import F32, Metric


def brute_force(centroids: F32, query: F32, nprobe: int, metric: Metric) -> list[int]:
    wide, q = centroids.astype(np.float64), query.astype(np.float64)
    far = ((wide - q) ** 2).sum(1) if metric is Metric.L2 else -(wide @ q)
    return [int(i) for i in np.lexsort((np.arange(len(far)), far))[:nprobe]]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("nprobe", [1, 7, 63, 64, 1000])
def test_it_finds_the_nearest_lists(metric: Metric, nprobe: int) -> None:
    rng = np.random.default_rng(5)
    centroids = rng.standard_normal((64, 16)).astype(np.float32)
    queries = rng.standard_normal((9, 16)).astype(np.float32)
    found = CoarseIndex(centroids, metric).nearest(queries, nprobe)
    assert found.dtype == np.int32
    assert found.shape == (9, min(nprobe, 64))
    for query, lists in zip(queries, found, strict=True):
        assert lists.tolist() == brute_force(centroids, query, nprobe, metric)


@given(
    # Whole numbers: products and sums are exact, and ties are the rule.
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=30),
    st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    st.integers(1, 30),
    st.sampled_from(list(Metric)),
)
def test_ties_go_to_the_smaller_list(
    points: list[tuple[int, int]], query: tuple[int, int], nprobe: int, metric: Metric
) -> None:
    centroids = np.array(points, np.float32)
    vector = np.array(query, np.float32)
    found = CoarseIndex(centroids, metric).nearest(vector[np.newaxis], nprobe)
    assert found[0].tolist() == brute_force(centroids, vector, nprobe, metric)


async def test_large_work_leaves_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    index = CoarseIndex(np.eye(4, dtype=np.float32), Metric.IP)
    query = np.eye(4, dtype=np.float32)[:2]
    inline = await ProbeStage()(index, query, 2)
    monkeypatch.setattr(probe, "_INLINE_WORK", 1)
    threaded = await ProbeStage()(index, query, 2)
    assert inline is not None
    assert threaded is not None
    assert inline.tolist() == threaded.tolist() == [[0, 1], [1, 0]]


async def test_an_exact_collection_has_no_lists() -> None:
    assert await ProbeStage()(None, np.zeros((1, 4), np.float32), 0) is None
