"""The coarse search is exact, whatever path it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages import probe
from coordinator.stages.probe import CoarseIndex, ProbeStage
from ragschema.errors import CorruptData
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
    assert found.flags.c_contiguous
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


def test_zeros_of_both_signs_tie() -> None:
    centroids = np.array([[0.0], [-0.0], [1.0], [-1.0], [0.0]], np.float32)
    for zero in (0.0, -0.0):
        query = np.array([[zero]], np.float32)
        assert CoarseIndex(centroids, Metric.IP).nearest(query, 5).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("scale", [1e-20, 1e-42, 1e15])
def test_tiny_denormal_and_huge_distances_keep_their_order(scale: float) -> None:
    values = np.array([3, -2, 5, 0, -7, 1], np.float64) * scale
    centroids = values.astype(np.float32)[:, np.newaxis]
    found = CoarseIndex(centroids, Metric.IP).nearest(np.ones((1, 1), np.float32), 6)
    assert found.tolist() == [[2, 0, 5, 3, 1, 4]]


@pytest.mark.parametrize("nlist", [1, 300, 70_000])
def test_blocks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch, nlist: int) -> None:
    rng = np.random.default_rng(9)
    index = CoarseIndex(rng.integers(-9, 9, (nlist, 3)).astype(np.float32), Metric.L2)
    queries = rng.integers(-9, 9, (7, 3)).astype(np.float32)
    small = index.nearest(queries, 5)
    monkeypatch.setattr(probe, "_SELECTED_AT_ONCE", 10**9)
    np.testing.assert_array_equal(index.nearest(queries, 5), small)


def test_an_empty_batch_has_no_lists() -> None:
    index = CoarseIndex(np.eye(4, dtype=np.float32), Metric.L2)
    assert index.nearest(np.zeros((0, 4), np.float32), 2).shape == (0, 2)


def test_queries_are_rotated_and_moved_first() -> None:
    rng = np.random.default_rng(3)
    rotation = rng.integers(-3, 4, (5, 8)).astype(np.float32)
    offset = rng.integers(-3, 4, 5).astype(np.float32)
    centroids = rng.integers(-9, 9, (20, 5)).astype(np.float32)
    queries = rng.integers(-2, 3, (6, 8)).astype(np.float32)
    found = CoarseIndex(centroids, Metric.L2, rotation, offset).nearest(queries, 4)
    for query, lists in zip(queries, found, strict=True):
        turned = rotation @ query + offset
        assert lists.tolist() == brute_force(centroids, turned, 4, Metric.L2)
    moved = CoarseIndex(centroids, Metric.L2, None, offset).nearest(queries[:, :5], 4)
    for query, lists in zip(queries[:, :5], moved, strict=True):
        assert lists.tolist() == brute_force(centroids, query + offset, 4, Metric.L2)


def test_a_rotation_of_another_size_is_refused() -> None:
    centroids = np.eye(4, dtype=np.float32)
    with pytest.raises(CorruptData, match="3 numbers"):
        CoarseIndex(centroids, Metric.L2, np.zeros((3, 4), np.float32))
    with pytest.raises(CorruptData, match="5 numbers"):
        CoarseIndex(centroids, Metric.L2, None, np.zeros(5, np.float32))


async def test_large_work_leaves_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    index = CoarseIndex(np.eye(4, dtype=np.float32), Metric.IP)
    query = np.eye(4, dtype=np.float32)[:2]
    inline = await ProbeStage()(index, query, [2, 2])
    monkeypatch.setattr(probe, "_INLINE_WORK", 1)
    threaded = await ProbeStage()(index, query, [2, 2])
    assert inline is not None
    assert threaded is not None
    assert inline.tolist() == threaded.tolist() == [[0, 1], [1, 0]]


async def test_rows_of_a_batch_may_be_of_different_widths() -> None:
    index = CoarseIndex(np.eye(4, dtype=np.float32), Metric.IP)
    lists = await ProbeStage()(index, np.eye(4, dtype=np.float32)[:3], [1, 4, 2])
    assert lists is not None
    assert lists.tolist() == [[0, -1, -1, -1], [1, 0, 2, 3], [2, 0, -1, -1]]


async def test_an_exact_collection_has_no_lists() -> None:
    assert await ProbeStage()(None, np.zeros((1, 4), np.float32), [0]) is None
