"""The coarse search: fixedpoint.exact_distances of all centroids, nearest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragschema.types import F32, I32, Metric
from retrieval_node.fixedpoint import exact_distances
from retrieval_node.native.loader import require_native

ISAS = require_native().machine_isas()


def _index(centroids: F32, metric: Metric, isa: str) -> Any:
    dim = centroids.shape[1]
    name = "l2" if metric is Metric.L2 else "ip"
    books, shift = np.zeros((1, 256, dim), np.float32), np.zeros(dim, np.float32)
    return require_native().Index(name, centroids, books, shift, True, isa)


def _reference(centroids: F32, queries: F32, metric: Metric, nprobe: int) -> I32:
    numbers = np.arange(len(centroids))
    return np.array(
        [np.lexsort((numbers, exact_distances(q, centroids, metric)))[:nprobe] for q in queries],
        dtype=np.int32,
    ).reshape(len(queries), -1)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("nlist", "dim", "n", "nprobe"),
    [(1, 1, 1, 1), (5, 4, 3, 9), (33, 16, 70, 8), (100, 17, 4, 32), (1000, 64, 33, 1),
     (1024, 20, 9, 128), (2100, 3, 5, 600), (600, 5, 6, 600)],
)  # fmt: skip
def test_equals_the_reference(
    metric: Metric, whole: bool, nlist: int, dim: int, n: int, nprobe: int
) -> None:
    """``whole``: small integers, so that many distances are equal."""
    rng = np.random.default_rng(nlist + dim)
    centroids, queries = (
        rng.integers(-2, 3, size).astype(np.float32)
        if whole
        else rng.normal(size=size).astype(np.float32)
        for size in ((nlist, dim), (n, dim))
    )
    want = _reference(centroids, queries, metric, nprobe)
    for isa in ISAS:
        index = _index(centroids, metric, isa)
        for threads in (1, 3):
            found = index.coarse(queries, nprobe, require_native().Pool(threads))
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, want, f"{isa} {threads}")


@pytest.mark.parametrize("reach", [1.0, 1.2, 1.7, 1000.0])
def test_lists_out_of_reach_are_left_out(reach: float) -> None:
    rng = np.random.default_rng(5)
    centroids = rng.normal(size=(300, 24)).astype(np.float32)
    queries = rng.normal(size=(9, 24)).astype(np.float32)
    lists = _reference(centroids, queries, Metric.L2, 40)
    for q, row in enumerate(lists):
        distances = exact_distances(queries[q], centroids[row], Metric.L2)
        row[distances > np.float32(reach) * distances[0]] = -1
    for isa in ISAS:
        index = _index(centroids, Metric.L2, isa)
        for threads in (1, 3):
            pool = require_native().Pool(threads)
            found = index.coarse(queries, 40, pool, reach=reach)
            np.testing.assert_array_equal(found, lists, f"{isa} {threads}")


def test_a_query_on_a_centroid_reaches_all_lists() -> None:
    """There is no multiple of a distance of zero."""
    centroids = np.arange(40, dtype=np.float32).reshape(20, 2)
    index, pool = _index(centroids, Metric.L2, ISAS[0]), require_native().Pool(1)
    found = index.coarse(centroids[3:4], 5, pool, reach=1.5)
    np.testing.assert_array_equal(found, index.coarse(centroids[3:4], 5, pool))


@pytest.mark.parametrize("reach", [0.5, float("nan"), float("inf")])
def test_refuses_a_reach_that_is_none(reach: float) -> None:
    index = _index(np.zeros((4, 2), np.float32), Metric.L2, ISAS[0])
    with pytest.raises(ValueError, match="reach"):
        index.coarse(np.zeros((1, 2), np.float32), 2, require_native().Pool(1), reach=reach)


def test_inner_products_have_no_reach() -> None:
    index = _index(np.zeros((4, 2), np.float32), Metric.IP, ISAS[0])
    with pytest.raises(ValueError, match="reach"):
        index.coarse(np.zeros((1, 2), np.float32), 2, require_native().Pool(1), reach=1.5)


def test_a_query_gets_the_same_lists_in_any_batch() -> None:
    rng = np.random.default_rng(3)
    centroids = rng.normal(size=(300, 24)).astype(np.float32)
    queries = rng.normal(size=(41, 24)).astype(np.float32)
    pool = require_native().Pool(1)
    index = _index(centroids, Metric.L2, ISAS[0])
    together = index.coarse(queries, 20, pool)
    for q in range(41):
        np.testing.assert_array_equal(index.coarse(queries[q : q + 1], 20, pool)[0], together[q])


def test_equal_centroids_are_taken_by_number() -> None:
    index = _index(np.ones((200, 8), np.float32), Metric.L2, ISAS[0])
    found = index.coarse(np.zeros((2, 8), np.float32), 50, require_native().Pool(1))
    np.testing.assert_array_equal(found, np.tile(np.arange(50), (2, 1)))


def test_numbers_that_are_none_do_not_crash() -> None:
    """The engine refuses them; a caller that does not still gets lists."""
    centroids = np.random.default_rng(4).normal(size=(500, 8)).astype(np.float32)
    queries = np.full((3, 8), np.nan, np.float32)
    for isa in ISAS:
        found = _index(centroids, Metric.L2, isa).coarse(queries, 10, require_native().Pool(1))
        assert found.shape == (3, 10)
        assert ((found >= 0) & (found < 500)).all()
        assert all(len(set(row)) == 10 for row in found.tolist())


def test_no_queries() -> None:
    index = _index(np.ones((20, 8), np.float32), Metric.L2, ISAS[0])
    found = index.coarse(np.zeros((0, 8), np.float32), 5, require_native().Pool(2))
    assert found.shape == (0, 5)


@pytest.mark.parametrize(
    ("queries", "nprobe", "named"),
    [
        (np.zeros((1, 7), np.float32), 1, "queries"),
        (np.zeros((1, 8), np.float64), 1, "queries"),
        (np.zeros((8,), np.float32), 1, "queries"),
        (np.zeros((1, 8), np.float32), 0, "nprobe"),
    ],
)
def test_refuses_what_does_not_fit(queries: Any, nprobe: int, named: str) -> None:
    index = _index(np.ones((20, 8), np.float32), Metric.L2, ISAS[0])
    with pytest.raises(ValueError, match=named):
        index.coarse(queries, nprobe, require_native().Pool(1))


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize(
    ("common", "spread"),
    [(1e4, 1.0), (0.0, 1e-30), (0.0, 1e-22), (1e3, 1e-4), (0.0, 1e19), (3e18, 1e18)],
    ids=["far from zero", "denormal", "small squares", "rounded away", "too large", "all large"],
)
def test_what_is_nearly_equal_or_too_large_is_ordered_as_the_reference_does(
    metric: Metric, common: float, spread: float
) -> None:
    """Candidates come from a quicker, less exact distance: none may be lost by it."""
    print("seed 12")
    rng = np.random.default_rng(12)
    centroids = (common + spread * rng.normal(size=(700, 48))).astype(np.float32)
    near = centroids[rng.integers(0, 700, 21)]
    queries = (near + 0.1 * spread * rng.normal(size=near.shape)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        want = _reference(centroids, queries, metric, 40)
    for isa in ISAS:
        found = _index(centroids, metric, isa).coarse(queries, 40, require_native().Pool(1))
        np.testing.assert_array_equal(found, want, isa)


@pytest.mark.parametrize("nprobe", [1, 7, 16, 100, 160, 161, 300, 320, 321, 499])
def test_each_way_of_ordering_gives_the_same(nprobe: int) -> None:
    """By counting, or by sorting where there are many, or ties."""
    print("seed 13")
    rng = np.random.default_rng(13)
    distinct = rng.normal(size=(500, 12)).astype(np.float32)
    twice = np.repeat(distinct[:250], 2, axis=0)
    queries = rng.normal(size=(9, 12)).astype(np.float32)
    for centroids in (distinct, twice):
        want = _reference(centroids, queries, Metric.L2, nprobe)
        for isa in ISAS:
            found = _index(centroids, Metric.L2, isa).coarse(
                queries, nprobe, require_native().Pool(1)
            )
            np.testing.assert_array_equal(found, want, isa)
