"""Tables of integers come near the float ones, and keep their bounds whatever they are given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from ragschema.types import F32, U8, Metric
from retrieval_node.fixedpoint import (
    Contract,
    exact_distances,
    saturating_sums,
    smallest,
    to_distance,
)
from retrieval_node.fixedpoint_card import (
    NO_NORMS,
    IntegerBook,
    component_limit,
    make_tables,
    query_vectors,
    scan_tables_card,
)

M, SUB, LISTS = 8, 4, 5


def problem(seed: int, m: int = M, sub: int = SUB) -> tuple[F32, F32, F32]:
    """A query, centroids and codebooks of ordinary size."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=m * sub).astype(np.float32)
    centroids = rng.normal(size=(LISTS, m * sub)).astype(np.float32)
    codebooks = (0.5 * rng.normal(size=(m, 256, sub))).astype(np.float32)
    return query, centroids, codebooks


@pytest.mark.parametrize("sub", [1, 2, 3, 8, 100, 512])
def test_inner_products_of_components_within_the_limit_fit(sub: int) -> None:
    limit = component_limit(sub)
    assert sub * limit**2 <= 1 << 30
    assert limit == 32_767 or sub * (limit + 1) ** 2 > 1 << 30


def test_a_codebook_is_rounded_and_measured() -> None:
    """Worked by hand: m 1, two components; the largest takes the whole range."""
    codebooks = np.zeros((1, 256, 2), dtype=np.float32)
    codebooks[0, 1], codebooks[0, 2] = (4.0, 2.0), (-1.0, 0.0)
    book = IntegerBook.of(codebooks)
    limit = component_limit(2)
    assert book.unit == limit / 4.0
    assert book.components[0, 1].tolist() == [limit, round(limit / 2)]
    assert book.components[0, 2].tolist() == [-round(limit / 4), 0]
    assert book.lengths[0] == limit**2 + round(limit / 2) ** 2
    assert book.norms[0, 1] == book.lengths[0] // 2


def test_a_table_by_hand() -> None:
    """ip, one column: -q . cb above the bound, cut, scaled to 16 bits."""
    codebooks = np.zeros((1, 256, 1), dtype=np.float32)
    codebooks[0, 1, 0], codebooks[0, 2, 0] = 1.0, -1.0
    book = IntegerBook.of(codebooks)
    query, centroids = np.ones(1, dtype=np.float32), np.zeros((1, 1), dtype=np.float32)
    vectors = query_vectors(query, centroids, book, Metric.IP, Contract())
    table = make_tables(book, vectors, 16)[0, 0]
    assert vectors.norm_shift == NO_NORMS
    assert vectors.components.tolist() == [[32_767]]
    # From the nearest codeword to the farthest lie two units of distance.
    assert abs((int(table[2]) - int(table[1])) / float(vectors.scale) - 2.0) < 1e-3
    assert abs((int(table[0]) - int(table[1])) / float(vectors.scale) - 1.0) < 1e-3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_distances_are_near_the_float_ones(metric: Metric, residual: bool, bits: int) -> None:
    query, centroids, codebooks = problem(3)
    contract = Contract(table_bits=bits)
    book = IntegerBook.of(codebooks)
    found = scan_tables_card(query, centroids, book, metric, contract, residual)
    codes = np.random.default_rng(4).integers(0, 256, (200, M), dtype=np.uint8)
    for p in range(LISTS):
        sums = saturating_sums(
            found.tables[p if len(found.tables) > 1 else 0], int(found.biases[p]), codes, contract
        )
        rows = codebooks[np.arange(M)[None, :], codes].reshape(len(codes), -1)
        decoded = (rows + (centroids[p] if residual else 0.0)).astype(np.float32)
        want = exact_distances(query, decoded, metric)
        got = to_distance(sums, found.base, found.scale)
        # A quantum and a half for each of m entries and the bias; rounded components.
        bound = 1.5 * (M + 1) / float(found.scale) + 2e-3
        assert np.abs(got - want).max() <= bound, p
        assert abs((got - want).mean()) <= bound / 2, p


def nearest(
    query: F32, centroids: F32, codebooks: F32, codes: U8, metric: Metric
) -> tuple[list[int], list[int]]:
    """The 100 nearest rows by floats, and by tables of integers."""
    rows = codebooks[np.arange(M)[None, :], codes].reshape(len(codes), -1)
    ids, contract = np.arange(len(codes)), Contract()
    exact = exact_distances(query, (rows + centroids[0]).astype(np.float32), metric)
    found = scan_tables_card(query, centroids[:1], IntegerBook.of(codebooks), metric, contract)
    sums = saturating_sums(found.tables[0], int(found.biases[0]), codes, contract)
    return smallest(exact, ids, 100).tolist(), smallest(sums, ids, 100).tolist()


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_nearly_all_of_the_hundred_nearest_are_the_same(metric: Metric) -> None:
    shared = 0
    for seed in range(20):
        query, centroids, codebooks = problem(seed)
        codes = np.random.default_rng(seed).integers(0, 256, (5000, M), dtype=np.uint8)
        wanted, got = nearest(query, centroids, codebooks, codes, metric)
        shared += len(set(wanted) & set(got))
    assert shared >= 0.995 * 20 * 100


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from([Metric.L2, Metric.IP]),
    residual=st.booleans(),
    m=st.sampled_from([1, 3, 8]),
    sub=st.sampled_from([1, 2, 5, 40]),
    bits=st.sampled_from([(16, 24), (8, 24), (16, 17), (8, 9)]),
    of_query=st.sampled_from([-30, -4, 0, 3, 14]),
    of_book=st.sampled_from([-30, -4, 0, 3, 14]),
    lists=st.integers(0, 5),
    zero=st.sampled_from(["", "query", "book", "centroids"]),
)
def test_numbers_stay_within_their_words(
    seed: int, metric: Metric, residual: bool, m: int, sub: int, bits: tuple[int, int],
    of_query: int, of_book: int, lists: int, zero: str,
) -> None:  # fmt: skip
    query, centroids, codebooks = problem(seed, m, sub)
    query = query * np.float32(0.0 if zero == "query" else 10.0**of_query)
    codebooks = codebooks * np.float32(0.0 if zero == "book" else 10.0**of_book)
    centroids = centroids[:lists] * np.float32(0.0 if zero == "centroids" else 10.0**of_book)
    contract, book = Contract(*bits), IntegerBook.of(codebooks)
    vectors = query_vectors(query, centroids, book, metric, contract, residual)
    tables = make_tables(book, vectors, contract.table_bits)  # offsets below all: it asserts
    assert 0 <= vectors.norm_shift <= NO_NORMS
    assert 0 <= vectors.sum_shift <= 31
    assert 0 <= vectors.factor <= 65_535
    assert math.isfinite(vectors.base)
    assert 0 < float(vectors.scale) < math.inf
    assert int(tables.max(initial=0)) <= contract.table_max
    assert len(vectors.biases) == lists
    assert (vectors.biases >= 0).all()
    assert (vectors.biases <= contract.sum_max).all()
    assert np.abs(vectors.components.astype(np.int64)).max(initial=0) <= component_limit(sub)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_no_sum_saturates(metric: Metric) -> None:
    query, centroids, codebooks = problem(9)
    for bits in ((16, 24), (16, 17), (8, 9)):
        contract = Contract(*bits)
        found = scan_tables_card(query, centroids, IntegerBook.of(codebooks), metric, contract)
        largest = found.tables.max(axis=2).sum(axis=1, dtype=np.int64)
        assert (found.biases + largest).max() <= contract.sum_max


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e16])
def test_a_query_that_is_no_number_is_refused(value: float) -> None:
    query, centroids, codebooks = problem(1)
    query[3] = value
    with pytest.raises(InvalidInput) as caught:
        query_vectors(query, centroids, IntegerBook.of(codebooks), Metric.L2, Contract())
    assert caught.value.field == "queries"
