"""The kernels give the bits of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import Metric
from retrieval_node import kernels
from retrieval_node.fixedpoint import Contract, saturating_sums, scan_tables, smallest

NOTHING = np.zeros(0, dtype=np.uint8)


def _tables(metric: Metric, queries, lists, starts, centroids, codebooks, contract):  # type: ignore[no-untyped-def]
    n, m = len(queries), codebooks.shape[0]
    mode_a = metric is Metric.L2
    tables = np.full((len(lists) if mode_a else n, m * 256), 7, dtype=np.uint16)
    biases = np.full(len(lists), -1, dtype=np.int64)
    bases, scales = np.full(n, np.nan), np.full(n, np.nan, dtype=np.float32)
    run = kernels.tables_mode_a if mode_a else kernels.tables_mode_b
    run(
        queries,
        lists,
        starts,
        centroids,
        np.ascontiguousarray(codebooks.transpose(0, 2, 1)),
        kernels.limits_of(contract.table_max, contract.span_limit(m)),
        contract.sum_max,
        tables,
        biases,
        bases,
        scales,
    )
    return tables, biases, bases, scales


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 9),
    sub=st.integers(1, 9),
    probes=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    exponent=st.integers(-20, 14),
    metric=st.sampled_from(list(Metric)),
    bits=st.sampled_from([8, 16]),
    flat=st.booleans(),
)
def test_tables_equal_the_reference_bit_for_bit(
    seed: int, m: int, sub: int, probes: list[int], exponent: int, metric: Metric, bits: int,
    flat: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    size, dim, nlist = 10.0**exponent, m * sub, 6
    queries = (size * rng.normal(size=(len(probes), dim))).astype(np.float32)
    centroids = (size * rng.normal(size=(nlist, dim))).astype(np.float32)
    codebooks = (size * rng.normal(size=(m, 256, sub))).astype(np.float32)
    if flat:
        codebooks[:] = codebooks[:, :1]
    chosen = [np.sort(rng.choice(nlist, count, replace=False)) for count in probes]
    lists = np.concatenate(chosen).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(probes)]).astype(np.int64)
    contract = Contract(table_bits=bits)
    tables, biases, bases, scales = _tables(
        metric, queries, lists, starts, centroids, codebooks, contract
    )
    for q, own in enumerate(chosen):
        want = scan_tables(queries[q], centroids[own], codebooks, metric, contract)
        part = slice(starts[q], starts[q + 1])
        got = tables[part] if metric is Metric.L2 else tables[q : q + 1]
        np.testing.assert_array_equal(got.reshape(want.tables.shape), want.tables)
        np.testing.assert_array_equal(biases[part], want.biases)
        assert (bases[q], scales[q]) == (want.base, want.scale)


def test_more_lists_than_kept_tables_are_recomputed_to_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    nlist = kernels.KEPT_TABLES + 9
    queries = rng.normal(size=(1, 4)).astype(np.float32)
    centroids = rng.normal(size=(nlist, 4)).astype(np.float32)
    codebooks = rng.normal(size=(2, 256, 2)).astype(np.float32)
    lists = np.arange(nlist, dtype=np.int64)
    starts = np.array([0, nlist], dtype=np.int64)
    tables, _, _, _ = _tables(Metric.L2, queries, lists, starts, centroids, codebooks, Contract())
    want = scan_tables(queries[0], centroids, codebooks, Metric.L2, Contract())
    np.testing.assert_array_equal(tables.reshape(want.tables.shape), want.tables)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 6),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    k=st.integers(1, 40),
    distinct=st.sampled_from([1, 3, 65536]),
    near_top=st.booleans(),
    share_alive=st.sampled_from([0.0, 0.5, 1.0]),
    share_passed=st.sampled_from([None, 0.0, 0.5]),
)
def test_scan_equals_the_reference(
    seed: int, m: int, sizes: list[int], k: int, distinct: int, near_top: bool,
    share_alive: float, share_passed: float | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    contract, n = Contract(), sum(sizes)
    codes = rng.integers(0, 256, (n, m), dtype=np.uint8)
    ids = rng.permutation(10 * n + 1)[:n].astype(np.int64)
    tables = rng.integers(0, distinct, (len(sizes), m * 256)).astype(np.uint16)
    low = contract.sum_max - 70_000 if near_top else 0
    biases = rng.integers(low, low + 3, len(sizes))
    alive = (rng.random(n) < share_alive).astype(np.uint8) if share_alive < 1.0 else NOTHING
    masks = NOTHING if share_passed is None else (rng.random(n) < share_passed).astype(np.uint8)
    borders = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    jobs = np.zeros((len(sizes), 5), dtype=np.int64)
    jobs[:, 0], jobs[:, 1], jobs[:, 2], jobs[:, 3] = (
        borders[:-1],
        sizes,
        np.arange(len(sizes)),
        biases,
    )
    jobs[:, 4] = -1 if share_passed is None else borders[:-1]
    sums, rows = np.zeros((1, k), dtype=np.int64), np.zeros((1, k), dtype=np.int64)
    counts = np.zeros(1, dtype=np.int32)
    starts = np.array([0, len(sizes)], dtype=np.int64)
    kernels.scan(
        jobs, starts, codes, ids, alive, masks, tables, contract.sum_max, sums, rows, counts
    )
    valid = np.ones(n, dtype=bool)
    if len(alive):
        valid &= alive.astype(bool)
    if len(masks):
        valid &= masks.astype(bool)
    want = np.concatenate(
        [
            saturating_sums(
                tables[t].reshape(m, 256),
                int(biases[t]),
                codes[borders[t] : borders[t + 1]],
                contract,
            )
            for t in range(len(sizes))
        ]
    )
    best = smallest(want[valid], ids[valid], k)
    assert counts[0] == len(best)
    assert sums[0, : counts[0]].tolist() == want[valid][best].tolist()
    assert rows[0, : counts[0]].tolist() == ids[valid][best].tolist()


def test_lane_masks_follow_the_bitmaps() -> None:
    rng = np.random.default_rng(2)
    ids = rng.permutation(64).astype(np.int64)
    bitmaps = rng.integers(0, 256, (2, 8), dtype=np.uint8)
    jobs = np.array([[0, 10, 0, 0, 9], [10, 20, 0, 0, 9], [30, 34, 0, 0, 9]], dtype=np.int64)
    filter_of_job = np.array([1, -1, 0], dtype=np.int64)
    masks = np.full(64, 9, dtype=np.uint8)
    used = kernels.lane_masks(jobs, filter_of_job, bitmaps, ids, masks)
    assert used == 44
    assert jobs[:, 4].tolist() == [0, -1, 10]
    bits = np.unpackbits(bitmaps, axis=1, bitorder="little")
    np.testing.assert_array_equal(masks[:10], bits[1][ids[:10]])
    np.testing.assert_array_equal(masks[10:44], bits[0][ids[30:64]])


@pytest.mark.parametrize("metric", list(Metric))
def test_a_query_without_lists_leaves_defined_values(metric: Metric) -> None:
    tables, biases, bases, scales = _tables(
        metric,
        np.ones((1, 2), dtype=np.float32),
        np.zeros(0, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        np.ones((1, 2), dtype=np.float32),
        np.ones((1, 256, 2), dtype=np.float32),
        Contract(),
    )
    assert len(biases) == 0
    assert (bases[0], scales[0]) == (0.0, 1.0)
    assert not tables.any()
