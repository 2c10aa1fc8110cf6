"""l2 in mode B: one table per query and a bias per code come near the float distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from ragschema.types import F32, U8, Metric
from retrieval_node.fixedpoint import Contract, TableMode, exact_distances, to_distance, usual_mode
from retrieval_node.fixedpoint_rows import (
    CodeBiases,
    has_code_biases,
    saturating_sums_rows,
    scan_tables_l2_rows,
)

M, SUB, LISTS = 6, 4, 5


def problem(seed: int, size: float = 1.0, residual: bool = True) -> tuple[F32, CodeBiases, U8]:
    """A query, an index and codes for every list."""
    rng = np.random.default_rng(seed)
    query = (size * rng.normal(size=M * SUB)).astype(np.float32)
    centroids = (size * rng.normal(size=(LISTS, M * SUB))).astype(np.float32)
    codebooks = (0.3 * size * rng.normal(size=(M, 256, SUB))).astype(np.float32)
    shift = (0.1 * size * rng.normal(size=M * SUB)).astype(np.float32)
    codes = rng.integers(0, 256, (40, M), dtype=np.uint8)
    return query, CodeBiases.of(centroids, codebooks, shift, residual), codes


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("residual", [True, False])
def test_distances_are_near_the_float_ones(bits: int, residual: bool) -> None:
    query, biases, codes = problem(3, residual=residual)
    contract = Contract(table_bits=bits)
    lists = np.arange(LISTS)
    found = scan_tables_l2_rows(query, lists, biases, contract)
    parts = biases.codebooks[np.arange(M)[None, :], codes].reshape(len(codes), -1)
    for p, number in enumerate(lists.tolist()):
        sums = saturating_sums_rows(
            found, int(found.biases[p]), codes, biases.encode(number, codes), contract
        )
        got = to_distance(sums, found.base, found.scale)
        decoded = (biases.centroids[number] + parts).astype(np.float32)
        want = exact_distances(query, decoded, Metric.L2)
        # Half a quantum for each of m entries, the bias and two words, half a step for u.
        bound = (M + 3) / 2 / float(found.scale) + biases.step / 2
        assert np.abs(got - want).max() <= bound + 1e-3, number


def test_a_bias_is_its_lists_floor_and_steps() -> None:
    """Worked by hand: m 1, one component, codewords 0, 1 and 3, centroid 2, no shift."""
    codebooks = np.zeros((1, 256, 1), dtype=np.float32)
    codebooks[0, 1:3, 0] = (1.0, 3.0)
    centroids = np.array([[2.0]], dtype=np.float32)
    biases = CodeBiases.of(centroids, codebooks, np.zeros(1, dtype=np.float32), True)
    assert biases.floors.tolist() == [0.0]
    assert biases.step == 21.0 / 65_535  # t of 0, 1, 3: 0, 1 + 4, 9 + 12
    codes = np.array([[0], [1], [2]], dtype=np.uint8)
    assert biases.encode(0, codes).tolist() == [0, 15_604, 65_535]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-12, 11),
    bits=st.sampled_from([8, 16]),
    nprobe=st.integers(1, LISTS),
)
def test_no_sum_saturates_whatever_the_code(
    seed: int, exponent: int, bits: int, nprobe: int
) -> None:
    query, biases, _ = problem(seed, 10.0**exponent)
    contract = Contract(table_bits=bits)
    found = scan_tables_l2_rows(query, np.arange(nprobe), biases, contract)
    tops = int(found.tables[0].max(axis=1).astype(np.int64).sum())
    worst = int(found.biases.max()) + tops + int(found.code_words.max(axis=1).astype(int).sum())
    assert worst <= contract.sum_max
    near = np.arange(max(0, worst - 300), worst + 1, dtype=np.int64)
    assert (np.diff(to_distance(near, found.base, found.scale)) > 0).all()


def test_no_row_and_no_shard_changes_what_is_stored() -> None:
    _, biases, codes = problem(5)
    whole = biases.encode(2, codes)
    assert biases.encode(2, codes[7:20]).tolist() == whole[7:20].tolist()
    assert biases.encode(2, codes[:0]).tolist() == []


def test_saturation_reaches_the_largest_sum_and_not_beyond() -> None:
    query, biases, codes = problem(6)
    contract = Contract()
    found = scan_tables_l2_rows(query, np.arange(LISTS), biases, contract)
    full = np.full(len(codes), 65_535, dtype=np.uint16)
    sums = saturating_sums_rows(found, contract.sum_max - 1, codes, full, contract)
    assert (sums == contract.sum_max).all()


def test_an_index_of_equal_codewords_has_no_steps() -> None:
    codebooks = np.full((2, 256, 1), 3.0, dtype=np.float32)
    centroids = np.ones((2, 2), dtype=np.float32)
    biases = CodeBiases.of(centroids, codebooks, np.zeros(2, dtype=np.float32), True)
    assert biases.step == 0.0
    codes = np.zeros((3, 2), dtype=np.uint8)
    assert biases.encode(1, codes).tolist() == [0, 0, 0]
    found = scan_tables_l2_rows(np.ones(2, dtype=np.float32), np.arange(2), biases, Contract())
    sums = saturating_sums_rows(found, 0, codes, biases.encode(1, codes), Contract())
    assert to_distance(sums, found.base, found.scale).tolist() == [18.0] * 3


def test_no_probed_list_gives_no_bias() -> None:
    query, biases, _ = problem(1)
    found = scan_tables_l2_rows(query, np.zeros(0, np.int64), biases, Contract())
    assert (len(found.biases), found.base, float(found.scale)) == (0, 0.0, 1.0)


def test_a_query_that_is_no_number_is_refused() -> None:
    query, biases, _ = problem(1)
    query[1] = np.nan
    with pytest.raises(InvalidInput) as caught:
        scan_tables_l2_rows(query, np.arange(2), biases, Contract())
    assert caught.value.field == "queries"


def test_only_squared_distances_of_residuals_have_both_modes() -> None:
    assert usual_mode(Metric.L2, True) is TableMode.PER_LIST
    assert usual_mode(Metric.L2, False) is TableMode.PER_QUERY
    assert usual_mode(Metric.COSINE, True) is TableMode.PER_QUERY
    assert has_code_biases(Metric.L2, True, TableMode.PER_QUERY)
    assert not has_code_biases(Metric.L2, True, TableMode.PER_LIST)
    assert not has_code_biases(Metric.L2, False, TableMode.PER_QUERY)
    assert not has_code_biases(Metric.IP, True, TableMode.PER_QUERY)
