from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from ragschema.types import Metric
from retrieval_node.fixedpoint import (
    Contract,
    ScanTables,
    choose_scale,
    coarse_ip,
    exact_distances,
    quantize_biases,
    quantize_entries,
    saturating_sums,
    scan_tables,
    smallest,
    tables_ip,
    tables_l2,
    to_distance,
)


def _problem(seed: int, m: int, sub: int, lists: int, size: float = 1.0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    query = (size * rng.normal(size=m * sub)).astype(np.float32)
    centroids = (size * rng.normal(size=(lists, m * sub))).astype(np.float32)
    codebooks = (size * 0.5 * rng.normal(size=(m, 256, sub))).astype(np.float32)
    return query, centroids, codebooks, rng


def test_the_example_of_the_documentation() -> None:
    """The numbers worked out by hand in docs/numerics.md."""
    codebooks = np.zeros((2, 256, 1), dtype=np.float32)
    codebooks[0, :, 0] = 1.0
    codebooks[0, 1:3, 0] = (3.0, 4.0)
    codebooks[1, 1:3, 0] = (2.0, 3.0)
    centroids = np.array([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    query = np.array([2.0, 1.0], dtype=np.float32)
    contract = Contract(table_bits=8)
    found = scan_tables(query, centroids, codebooks, Metric.L2, contract)
    assert found.base == 1.0
    assert found.scale == np.float32(255 / 9)
    assert found.biases.tolist() == [28, 0]
    assert found.tables[0, :, :3].tolist() == [[0, 0, 85], [0, 0, 85]]
    assert found.tables[1, :, :3].tolist() == [[0, 113, 255], [0, 0, 85]]
    codes = np.array([[2, 2], [0, 1]], dtype=np.uint8)
    sums = saturating_sums(found.tables[0], 28, codes, contract)
    assert sums.tolist() == [198, 28]
    assert to_distance(sums, found.base, found.scale).round(3).tolist() == pytest.approx(
        [7.988, 1.988], abs=1e-3
    )


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("bits", [8, 16])
def test_distances_are_near_the_float_ones(metric: Metric, bits: int) -> None:
    query, centroids, codebooks, rng = _problem(3, m=6, sub=4, lists=5)
    contract = Contract(table_bits=bits)
    found = scan_tables(query, centroids, codebooks, metric, contract)
    codes = rng.integers(0, 256, (50, 6), dtype=np.uint8)
    for p, centroid in enumerate(centroids):
        table = found.tables[p if metric is Metric.L2 else 0]
        sums = saturating_sums(table, int(found.biases[p]), codes, contract)
        got = to_distance(sums, found.base, found.scale)
        decoded = centroid + codebooks[np.arange(6)[None, :], codes].reshape(50, -1)
        want = exact_distances(query, decoded.astype(np.float32), metric)
        # Each of m entries and the bias is off by at most half a quantum.
        quantum = 1.0 / float(found.scale)
        assert np.abs(got - want).max() <= (6 + 1) * quantum / 2 + 1e-4


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 40),
    sub=st.integers(1, 4),
    lists=st.integers(1, 6),
    exponent=st.integers(-12, 11),
    offset=st.sampled_from([0.0, 1.0, 1e3]),
    metric=st.sampled_from(list(Metric)),
    bits=st.sampled_from([8, 16]),
)
def test_no_sum_saturates_and_sums_stay_apart_as_floats(
    seed: int, m: int, sub: int, lists: int, exponent: int, offset: float, metric: Metric, bits: int
) -> None:
    size = 10.0**exponent
    query, centroids, codebooks, _ = _problem(seed, m, sub, lists, size)
    contract = Contract(table_bits=bits)
    query = (query + np.float32(offset * size)).astype(np.float32)
    found = scan_tables(query, centroids, codebooks, metric, contract)
    tops = found.tables.max(axis=2).astype(np.int64).sum(axis=1)
    worst = int((found.biases + tops).max())
    assert worst <= contract.sum_max
    near = np.arange(max(0, worst - 300), worst + 1, dtype=np.int64)
    distances = to_distance(near, found.base, found.scale)
    assert (np.diff(distances) > 0).all(), (found.base, found.scale)


def test_equal_tables_give_scale_one_and_zero_sums() -> None:
    zeros = np.zeros((3, 256, 2), dtype=np.float32)
    centroids = np.zeros((4, 6), dtype=np.float32)
    query = np.zeros(6, dtype=np.float32)
    found = scan_tables(query, centroids, zeros, Metric.IP, Contract())
    assert found.scale == 1.0
    assert not found.tables.any()
    assert not found.biases.any()
    assert to_distance(np.zeros(1, dtype=np.int64), found.base, found.scale)[0] == 0.0


def test_equal_but_nonzero_tables_keep_the_distance() -> None:
    codebooks = np.full((2, 256, 1), 3.0, dtype=np.float32)
    found = scan_tables(
        np.array([1.0, 1.0], dtype=np.float32),
        np.zeros((1, 2), dtype=np.float32),
        codebooks,
        Metric.L2,
        Contract(),
    )
    assert not found.tables.any()
    assert found.base == 8.0
    assert np.isfinite(found.scale)


def test_no_probed_list_gives_no_bias() -> None:
    query, _, codebooks, _ = _problem(1, 2, 2, 1)
    for metric in Metric:
        found = scan_tables(
            query, np.zeros((0, 4), dtype=np.float32), codebooks, metric, Contract()
        )
        assert isinstance(found, ScanTables)
        assert len(found.biases) == 0
        assert (found.base, float(found.scale)) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e16])
def test_a_query_that_is_no_ordinary_number_is_refused(bad: float) -> None:
    query, centroids, codebooks, _ = _problem(1, 2, 2, 1)
    query[2] = bad
    with pytest.raises(InvalidInput) as caught:
        scan_tables(query, centroids, codebooks, Metric.L2, Contract())
    assert caught.value.field == "queries"


def test_largest_allowed_values_do_not_overflow() -> None:
    query = np.full(64, 1e15, dtype=np.float32)
    centroids = np.full((1, 64), -1e15, dtype=np.float32)
    codebooks = np.full((16, 256, 4), 1e15, dtype=np.float32)
    codebooks[:, 1] = -1e15
    for metric in Metric:
        found = scan_tables(query, centroids, codebooks, metric, Contract())
        assert np.isfinite(found.base)
        assert 0 < found.scale < np.inf


def test_tables_add_in_order_without_fusing() -> None:
    query, _, codebooks, _ = _problem(9, m=3, sub=5, lists=1)
    for build, step in (
        (tables_l2, lambda acc, r, c: np.float32(acc + np.float32(np.float32(r - c) ** 2))),
        (tables_ip, lambda acc, r, c: np.float32(acc - np.float32(r * c))),
    ):
        table = build(query, codebooks)
        for j, code in ((0, 0), (1, 17), (2, 255)):
            acc = np.float32(0.0)
            for t in range(5):
                acc = step(acc, query[j * 5 + t], codebooks[j, code, t])
            assert table[j, code] == acc


def test_coarse_term_is_summed_in_float64() -> None:
    query = np.array([1e8, 1.0, -1e8], dtype=np.float32)
    assert coarse_ip(query, np.ones(3, dtype=np.float32)) == -1.0


def test_rounding_is_half_up_and_stops_at_the_top() -> None:
    values = np.array([0.0, 0.49, 0.5, 1.5, 254.4, 255.2, 300.0], dtype=np.float32)
    entries = quantize_entries(values, np.float32(1.0), 255)
    assert entries.tolist() == [0, 0, 1, 2, 254, 255, 255]
    biases = quantize_biases(np.array([1.0, 1.5, 1e12]), 1.0, np.float32(1.0), (1 << 24) - 1)
    assert biases.tolist() == [0, 1, (1 << 24) - 1]


def test_sums_saturate() -> None:
    contract = Contract()
    table = np.full((2, 256), 65535, dtype=np.uint16)
    codes = np.zeros((1, 2), dtype=np.uint8)
    top = contract.sum_max
    assert saturating_sums(table, top - 131070, codes, contract)[0] == top
    assert saturating_sums(table, top - 131071, codes, contract)[0] == top - 1
    assert saturating_sums(table, top, codes, contract)[0] == top


def test_each_limit_of_the_scale_can_bind() -> None:
    contract = Contract()
    assert choose_scale(1.0, 1.0, 1.0, 4, contract) == 65535.0
    assert choose_scale(1.0, 1000.0, 1.0, 4, contract) == ((1 << 24) - 1 - 10) / 1000.0
    assert choose_scale(1.0, 1.0, 1e6, 4, contract) == 2.0**22 / 1e6
    assert choose_scale(0.0, 0.0, 0.0, 4, contract) == 1.0
    assert choose_scale(1e-45, 0.0, 0.0, 4, contract) == 2.0**120


def test_ties_go_to_the_smaller_row_id() -> None:
    keys = np.array([5, 3, 3, 5, 3])
    ids = np.array([1, 9, 2, 0, 4], dtype=np.int64)
    assert ids[smallest(keys, ids, 4)].tolist() == [2, 4, 9, 0]


@pytest.mark.parametrize(("table_bits", "sum_bits"), [(7, 24), (16, 25), (16, 16)])
def test_unknown_widths_are_refused(table_bits: int, sum_bits: int) -> None:
    with pytest.raises(InvalidInput):
        Contract(table_bits, sum_bits)


@pytest.mark.parametrize("metric", list(Metric))
def test_codes_of_the_vectors_themselves_are_residuals_of_zero(metric: Metric) -> None:
    rng = np.random.default_rng(12)
    query = rng.normal(size=6).astype(np.float32)
    codebooks = rng.normal(size=(3, 256, 2)).astype(np.float32)
    centroids = rng.normal(size=(4, 6)).astype(np.float32)
    plain = scan_tables(query, centroids, codebooks, metric, Contract(), residual=False)
    zero = scan_tables(query, 0 * centroids, codebooks, metric, Contract())
    assert len(plain.tables) == 1
    np.testing.assert_array_equal(plain.tables[0], zero.tables[0])
    assert plain.biases.tolist() == zero.biases.tolist()
    assert (plain.base, plain.scale) == (zero.base, zero.scale)
