"""The lists of faiss's exact quantiser, ties and all."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llm_node.index_scan import centroids as module
from llm_node.index_scan.centroids import CentroidScan
from ragschema.errors import InvalidInput
from ragschema.storage.index_arrays import IndexArrays
from ragschema.types import F32, I32, Metric

F64 = NDArray[np.float64]
METRICS = [Metric.L2, Metric.IP]


def scan_of(centroids: F32, metric: Metric, device: str = "cpu") -> CentroidScan:
    return CentroidScan(IndexArrays(centroids, None, None), metric, torch.device(device))


def by_faiss(centroids: F32, metric: Metric, queries: F32, nprobe: int) -> I32:
    kind = faiss.IndexFlatL2 if metric is Metric.L2 else faiss.IndexFlatIP
    quantiser = kind(centroids.shape[1])
    quantiser.add(centroids)
    _, lists = quantiser.search(queries, min(nprobe, len(centroids)))
    found: I32 = lists.astype(np.int32)
    return found


def exact(centroids: F32, metric: Metric, query: F32) -> list[int]:
    wide, q = centroids.astype(np.float64), query.astype(np.float64)
    far = ((wide - q) ** 2).sum(1) if metric is Metric.L2 else -(wide @ q)
    return [int(i) for i in np.lexsort((np.arange(len(far)), far))]


def distances(centroids: F32, metric: Metric, query: F32, lists: list[int]) -> F64:
    wide, q = centroids[lists].astype(np.float64), query.astype(np.float64)
    far: F64 = ((wide - q) ** 2).sum(1) if metric is Metric.L2 else -(wide @ q)
    return far


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 7, 64])
@pytest.mark.parametrize("nprobe", [1, 16, 300])
def test_random_vectors_equal_faiss(metric: Metric, queries: int, nprobe: int) -> None:
    """Rank by rank; where two lists change places, float32 cannot tell them apart."""
    seed = queries * 1000 + nprobe
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    centroids = rng.standard_normal((256, 32)).astype(np.float32)
    asked = rng.standard_normal((queries, 32)).astype(np.float32)
    found = scan_of(centroids, metric).nearest(asked, nprobe)
    assert found.dtype == np.int32
    theirs = by_faiss(centroids, metric, asked, nprobe)
    assert (found == theirs).mean() > 0.99
    for query, mine, other in zip(asked, found.tolist(), theirs.tolist(), strict=True):
        assert sorted(set(mine)) == sorted(mine)
        np.testing.assert_allclose(
            distances(centroids, metric, query, mine),
            distances(centroids, metric, query, other),
            atol=1e-4,
        )


@pytest.mark.parametrize("queries", [1, 33])
def test_ties_equal_faiss(queries: int) -> None:
    """Whole numbers and repeated centroids: sums are exact, and most distances tie."""
    rng = np.random.default_rng(queries)
    centroids = rng.integers(-2, 3, (500, 4)).astype(np.float32)
    asked = rng.integers(-2, 3, (queries, 4)).astype(np.float32)
    for nprobe in (1, 5, 60, 500):
        found = scan_of(centroids, Metric.L2).nearest(asked, nprobe)
        assert found.tolist() == by_faiss(centroids, Metric.L2, asked, nprobe).tolist()


@pytest.mark.parametrize("queries", [1, 33])
def test_ties_of_inner_products_are_faiss_s_in_another_order(queries: int) -> None:
    """Which of equal products faiss keeps depends on its heap; ours go by list id."""
    rng = np.random.default_rng(queries)
    centroids = rng.integers(-2, 3, (500, 4)).astype(np.float32)
    asked = rng.integers(-2, 3, (queries, 4)).astype(np.float32)
    for nprobe in (1, 5, 60, 500):
        found = scan_of(centroids, Metric.IP).nearest(asked, nprobe)
        theirs = by_faiss(centroids, Metric.IP, asked, nprobe)
        for query, mine, other in zip(asked, found.tolist(), theirs.tolist(), strict=True):
            far = distances(centroids, Metric.IP, query, mine)
            assert far.tolist() == distances(centroids, Metric.IP, query, other).tolist()
            nearer = {number for number, at in zip(mine, far, strict=True) if at < far[-1]}
            assert nearer <= set(other)
            assert mine == exact(centroids, Metric.IP, query)[:nprobe]


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=60),
    st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    st.integers(1, 60),
    st.sampled_from(METRICS),
)
def test_ties_go_to_the_smaller_list(
    points: list[tuple[int, int]], query: tuple[int, int], nprobe: int, metric: Metric
) -> None:
    centroids, vector = np.array(points, np.float32), np.array([query], np.float32)
    found = scan_of(centroids, metric).nearest(vector, nprobe)
    assert found[0].tolist() == exact(centroids, metric, vector[0])[:nprobe]


@pytest.mark.parametrize("metric", METRICS)
def test_what_a_float32_product_cannot_tell_apart_is_told_apart(metric: Metric) -> None:
    """Far from the origin, distances differ by less than the product's rounding."""
    rng = np.random.default_rng(8)
    centroids = (1000 + rng.standard_normal((400, 24))).astype(np.float32)
    queries = (1000 + rng.standard_normal((5, 24))).astype(np.float32)
    found = scan_of(centroids, metric).nearest(queries, 20)
    for query, lists in zip(queries, found, strict=True):
        assert lists.tolist() == exact(centroids, metric, query)[:20]


@pytest.mark.parametrize("scale", [1e-20, 1e-42, 1e15])
def test_tiny_denormal_and_huge_distances_keep_their_order(scale: float) -> None:
    values = np.array([3, -2, 5, 0, -7, 1], np.float64) * scale
    centroids = values.astype(np.float32)[:, np.newaxis]
    found = scan_of(centroids, Metric.IP).nearest(np.ones((1, 1), np.float32), 6)
    assert found.tolist() == [[2, 0, 5, 3, 1, 4]]


def test_equal_centroids_all_come_in_order() -> None:
    scan = scan_of(np.ones((300, 8), np.float32), Metric.L2)
    found = scan.nearest(np.zeros((2, 8), np.float32), 7)
    assert found.tolist() == [list(range(7))] * 2


def test_the_batch_and_its_parts_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    scan = scan_of(rng.standard_normal((128, 16)).astype(np.float32), Metric.L2)
    queries = rng.standard_normal((40, 16)).astype(np.float32)
    whole = scan.nearest(queries, 9)
    for at in range(0, 40, 7):
        assert scan.nearest(queries[at : at + 1], 9).tolist() == whole[at : at + 1].tolist()
    monkeypatch.setattr(module, "_AT_ONCE", 1000)
    assert scan.nearest(queries, 9).tolist() == whole.tolist()
    assert scan.nearest(queries[:0], 9).shape == (0, 9)


def test_queries_are_rotated_and_moved_first() -> None:
    rng = np.random.default_rng(3)
    rotation = rng.integers(-3, 4, (5, 8)).astype(np.float32)
    offset = rng.integers(-3, 4, 5).astype(np.float32)
    centroids = rng.integers(-9, 9, (20, 5)).astype(np.float32)
    queries = rng.integers(-2, 3, (6, 8)).astype(np.float32)
    arrays = IndexArrays(centroids, rotation, offset)
    scan = CentroidScan(arrays, Metric.L2, torch.device("cpu"))
    turned = queries @ rotation.T + offset
    expected = [exact(centroids, Metric.L2, query)[:4] for query in turned]
    assert scan.nearest(queries, 4).tolist() == expected
    with pytest.raises(InvalidInput, match="5 numbers, the collection 8"):
        scan.nearest(queries[:, :5], 4)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_a_gpu_finds_the_same(metric: Metric) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    rng = np.random.default_rng(6)
    centroids = rng.standard_normal((4096, 96)).astype(np.float32)
    centroids[2000:2100] = centroids[:100]
    queries = rng.standard_normal((200, 96)).astype(np.float32)
    there = scan_of(centroids, metric, "cuda").nearest(queries, 64)
    assert there.tolist() == scan_of(centroids, metric).nearest(queries, 64).tolist()
