"""Mode ``fast`` finds what float IVF-PQ finds: the same bits, whatever the path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragschema.types import U8, Metric
from retrieval_node.native.loader import require_native
from tests.retrieval_node.native.fast_reference import Made, Shape, make, reference

ISAS = require_native().machine_isas()
ORDERS = ("query", "list", "auto")


@pytest.fixture(scope="module")
def pools() -> list[Any]:
    return [require_native().Pool(threads) for threads in (1, 2, 3)]


def _check(
    made: Made, pools: list[Any], *, n: int = 3, nprobe: int = 5, k: int = 10, refine_k: int = 0,
    live: U8 | None = None, filters: U8 | None = None, padded: float = 0.1,
) -> None:  # fmt: skip
    """Every path, order and number of threads against the reference."""
    queries, lists = made.queries(n), made.lists(n, nprobe, padded)
    filter_of = None if filters is None else np.arange(n, dtype=np.int32) % (len(filters) + 1) - 1
    want = []
    for q in range(n):
        bitmaps = [] if live is None else [live]
        if filters is not None and filter_of is not None and filter_of[q] >= 0:
            bitmaps.append(filters[filter_of[q]])
        want.append(reference(made, queries[q], lists[q], k, bitmaps, refine_k))
    for isa in ISAS:
        index, segments = made.handles(isa)
        for order in ORDERS:
            for pool in pools:
                found = require_native().search(
                    index, segments, queries, lists, k, pool, refine_k=refine_k, live=live,
                    filters=filters, filter_of=filter_of, order=order,
                )  # fmt: skip
                assert found.stopped == ""
                for q, (distances, rows) in enumerate(want):
                    where = f"{isa} {order} {pool.threads} threads, query {q}"
                    count = len(rows)
                    assert found.counts[q] == count, where
                    np.testing.assert_array_equal(found.rows[q, :count], rows, where)
                    np.testing.assert_array_equal(
                        found.distances[q, :count].view(np.uint32), distances.view(np.uint32), where
                    )
                    assert not found.rows[q, count:].any()
                    assert not found.distances[q, count:].any()


def test_the_machine_has_the_portable_path() -> None:
    assert ISAS[-1] == "portable"
    assert len(set(ISAS)) == len(ISAS)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize(("m", "sub"), [(4, 1), (8, 2), (16, 8), (5, 3), (32, 4), (6, 16), (3, 7)])
def test_equals_float_ivfpq(
    pools: list[Any], metric: Metric, residual: bool, m: int, sub: int
) -> None:
    made = make(Shape(metric, residual, m, sub, rows=(1500, 0, 130)), seed=m * 100 + sub)
    _check(made, pools)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("m", [33, 48, 64, 96, 128, 256, 257])
def test_long_codes(pools: list[Any], metric: Metric, m: int) -> None:
    """Both sides of the codes whose sums take 16 bits."""
    _check(make(Shape(metric, m=m, sub=1, rows=(1500,)), seed=m), pools)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("m", [48, 128])
def test_ties_of_long_codes(pools: list[Any], metric: Metric, m: int) -> None:
    made = make(Shape(metric, nlist=3, m=m, sub=1, rows=(700,), distinct=3), seed=m)
    _check(made, pools, nprobe=3)


def test_lists_of_several_runs(pools: list[Any]) -> None:
    """Long enough that limits tighten in between and threads share a list."""
    made = make(Shape(nlist=2, m=4, sub=2, rows=(40_000,)), seed=5)
    _check(made, pools, n=1, nprobe=2, padded=0.0)


@pytest.mark.parametrize("m", [8, 16, 40])
@pytest.mark.parametrize("k", [1, 10, 60, 300])
def test_rows_placed_by_their_bias(pools: list[Any], m: int, k: int) -> None:
    """Blocks and groups are left early then."""
    made = make(Shape(m=m, nlist=3, rows=(7000, 500), placed=True), seed=m + k)
    _check(made, pools, nprobe=3, k=k)


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_bias_terms_that_say_nothing(pools: list[Any], k: int, placed: bool) -> None:
    """Bounds from them are wrong from above: queries are scanned again, with exact limits."""
    made = make(Shape(nlist=4, rows=(3000, 400), loose=True, placed=placed), seed=k)
    _check(made, pools, nprobe=4, k=k)
    _check(made, pools, nprobe=4, k=k, live=made.bitmap(0.5))


@pytest.mark.parametrize("k", [1, 32, 33, 1024, 3000])
def test_any_k(pools: list[Any], k: int) -> None:
    """One more than there are rows, too."""
    _check(make(Shape(rows=(2500, 60)), seed=k), pools, k=k, nprobe=7)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("k", [10, 100])
def test_ties_go_to_the_smaller_row(pools: list[Any], metric: Metric, k: int) -> None:
    """Three different codes only: nearly every distance is a tie."""
    made = make(Shape(metric, nlist=3, rows=(700, 300), distinct=3), seed=k)
    _check(made, pools, k=k, nprobe=3)


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e-3, 1e6, 1e14])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_numbers_of_any_size(pools: list[Any], metric: Metric, scale: float) -> None:
    """Denormals, sums that vanish, and the largest that the engine lets through."""
    _check(make(Shape(metric, rows=(700,), scale=scale), seed=7), pools)


def test_data_far_from_the_origin(pools: list[Any]) -> None:
    """The filter's float32 sums lose nearly all digits here; results must not."""
    made = make(Shape(rows=(900,)), seed=8)
    made.index.centroids[:] += np.float32(3000.0)
    made.index.shift[:] = made.index.centroids.mean(axis=0)
    _check(made, pools)


@pytest.mark.parametrize("rows", [(), (0,), (1,), (0, 0), (64,), (65,)])
def test_hardly_any_rows(pools: list[Any], rows: tuple[int, ...]) -> None:
    _check(make(Shape(nlist=3, rows=rows), seed=9), pools, nprobe=3)


def test_no_queries_and_no_lists() -> None:
    made = make(Shape(), seed=10)
    index, segments = made.handles(ISAS[0])
    pool = require_native().Pool(1)
    none = require_native().search(
        index, segments, made.queries(0), np.zeros((0, 3), np.int32), 4, pool
    )
    assert none.distances.shape == (0, 4)
    empty = require_native().search(
        index, segments, made.queries(2), np.full((2, 3), -1, np.int32), 4, pool
    )
    assert empty.counts.tolist() == [0, 0]


@pytest.mark.parametrize("density", [0.0, 0.003, 0.3])
@pytest.mark.parametrize("k", [5, 60])
def test_tombstones_and_filters(pools: list[Any], density: float, k: int) -> None:
    made = make(Shape(rows=(2000, 500)), seed=int(density * 1000) + k)
    filters = np.stack([made.bitmap(density), made.bitmap(0.9)])
    _check(made, pools, k=k, nprobe=7, live=made.bitmap(0.8), filters=filters)


def test_rows_past_the_end_of_a_bitmap_are_not_set() -> None:
    made = make(Shape(nlist=1, rows=(300,)), seed=11)
    index, segments = made.handles(ISAS[0])
    lists = np.zeros((1, 1), np.int32)
    found = require_native().search(
        index, segments, made.queries(1), lists, 400, require_native().Pool(1),
        live=np.full(10, 255, np.uint8),
    )  # fmt: skip
    assert sorted(found.rows[0, : found.counts[0]]) == sorted(
        i for i in made.parts[0].ids.tolist() if i < 80
    )


@pytest.mark.parametrize("vectors", [np.float32, np.float16])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("refine_k", [10, 40, 5000])
def test_refinement(pools: list[Any], metric: Metric, vectors: Any, refine_k: int) -> None:
    made = make(Shape(metric, m=5, sub=5, rows=(800, 90), vectors=vectors), seed=refine_k)
    _check(made, pools, refine_k=refine_k, live=made.bitmap(0.9))


def test_refines_with_queries_of_another_dimension() -> None:
    """As after a rotation that drops components."""
    made = make(Shape(nlist=2, rows=(300,), vectors=np.float32), seed=12)
    scan, part = require_native(), made.parts[0]
    index, _ = made.handles(ISAS[0])
    wide = made.rng.normal(size=(300, 50)).astype(np.float32)
    handle = Made._segment
    object.__setattr__(part, "vectors", wide)
    segment = handle(made, index, part)
    asked = made.rng.normal(size=(2, 50)).astype(np.float32)
    queries, lists = made.queries(2), made.lists(2, 2)
    found = scan.search(
        index, [segment], queries, lists, 5, scan.Pool(1), refine_k=300, refine_queries=asked
    )
    for q in range(2):
        exact = ((wide - asked[q]) ** 2).sum(axis=1)
        np.testing.assert_array_equal(found.rows[q], part.ids[np.argsort(exact)[:5]])


def test_a_batch_gives_each_query_what_it_gets_alone(pools: list[Any]) -> None:
    """Enough queries that 'auto' scans by list."""
    made = make(Shape(nlist=6, rows=(3000,)), seed=13)
    index, segments = made.handles(ISAS[0])
    queries, lists, scan = made.queries(150), made.lists(150, 4), require_native()
    alone = [
        scan.search(index, segments, queries[q : q + 1], lists[q : q + 1], 7, pools[0])
        for q in range(150)
    ]
    for pool in pools:
        together = scan.search(index, segments, queries, lists, 7, pool)
        np.testing.assert_array_equal(together.rows, np.concatenate([a.rows for a in alone]))
        np.testing.assert_array_equal(
            together.distances, np.concatenate([a.distances for a in alone])
        )
        assert together.codes_scanned == sum(a.codes_scanned for a in alone)


def test_the_filter_leaves_few_survivors() -> None:
    """Else the scan is exact but no scan at memory speed."""
    made = make(Shape(nlist=1, m=16, sub=2, rows=(50_000,)), seed=14)
    queries, lists = made.queries(4), np.zeros((4, 1), np.int32)
    for isa in ISAS:
        index, segments = made.handles(isa)
        found = require_native().search(
            index, segments, queries, lists, 10, require_native().Pool(1)
        )
        assert found.codes_scanned == 200_000
        assert 40 <= found.survivors < 4_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from([Metric.L2, Metric.IP]),
    residual=st.booleans(),
    m=st.integers(1, 20),
    sub=st.integers(1, 17),
    nlist=st.integers(1, 9),
    rows=st.lists(st.integers(0, 700), min_size=1, max_size=3),
    distinct=st.sampled_from([0, 1, 4]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e8]),
    k=st.sampled_from([1, 9, 40, 900]),
    density=st.sampled_from([0.02, 0.5, 1.0]),
    refine=st.booleans(),
)
def test_any_shape(
    pools: list[Any], seed: int, metric: Metric, residual: bool, m: int, sub: int, nlist: int,
    rows: list[int], distinct: int, scale: float, k: int, density: float, refine: bool,
) -> None:  # fmt: skip
    shape = Shape(
        metric, residual, m, sub, nlist, tuple(rows), distinct, scale,
        np.float32 if refine else None,
    )  # fmt: skip
    made = make(shape, seed)
    _check(
        made, pools[:2], n=2, nprobe=nlist, k=k, refine_k=2 * k if refine else 0,
        live=made.bitmap(density),
    )  # fmt: skip
