"""Mode contract16 on every code path of the machine gives the bits of the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import F32, I32, U8, Metric
from retrieval_node.fixedpoint import Contract, TablesBy
from retrieval_node.native.loader import native
from tests.retrieval_node.native.contract_reference import Made, Shape, make, reference, refined

scan: Any = native()
pytestmark = pytest.mark.skipif(scan is None, reason="the extension was not built")
ISAS: tuple[str, ...] = () if scan is None else tuple(scan.machine_isas())

_sizes = st.sampled_from([0, 0, 1, 2, 5, 63, 64, 65, 130, 200])


def _search(made: Made, isa: str, queries: F32, lists: I32, k: int, **options: Any) -> Any:
    index = made.index(isa)
    segments = [rows.handle(index, made.metric) for rows in made.segments]
    pool = scan.Pool(options.pop("threads", 1))
    return scan.contract_search(index, segments, queries, lists, k, pool, **options)


def _check(found: Any, q: int, want: tuple[F32, Any]) -> None:
    distances, rows = want
    count = found.counts[q]
    assert count == len(rows)
    assert found.rows[q, :count].tolist() == rows.tolist()
    assert found.distances[q, :count].tobytes() == distances.tobytes()
    assert not found.rows[q, count:].any()
    assert not found.distances[q, count:].any()


def test_the_paths_of_this_machine_are_tested(record_property: Any) -> None:
    record_property("isas", ",".join(ISAS))
    print("code paths:", *ISAS)
    assert ISAS[-1] == "portable"
    assert len(set(ISAS)) == len(ISAS)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from([Metric.L2, Metric.IP]),
    residual=st.booleans(),
    m=st.sampled_from([1, 4, 7, 16]),
    sub=st.integers(1, 9),
    sizes=st.lists(st.tuples(*[_sizes] * 5), min_size=1, max_size=3),
    distinct=st.sampled_from([1, 3, 256]),
    exponent=st.sampled_from([-30, -20, 0, 14]),
    bits=st.sampled_from([(16, 24), (8, 24), (16, 17), (8, 9), (8, 11)]),
    k=st.sampled_from([1, 3, 10, 300]),
    threads=st.sampled_from([1, 3]),
    kept=st.sampled_from([None, 0.0, 0.05, 0.6]),
    tables=st.sampled_from(TablesBy),
)
def test_equals_the_reference_bit_for_bit(
    seed: int, metric: Metric, residual: bool, m: int, sub: int,
    sizes: list[tuple[int, ...]], distinct: int, exponent: int, bits: tuple[int, int], k: int,
    threads: int, kept: float | None, tables: TablesBy,
) -> None:  # fmt: skip
    made = make(Shape(metric, residual, m, sub, tuple(sizes), distinct, exponent), seed)
    rng = np.random.default_rng(seed + 1)
    queries = (10.0**exponent * rng.normal(size=(3, m * sub))).astype(np.float32)
    lists = np.array([[0, 4, 2, 3], [1, -1, 4, -1], [-1, -1, -1, -1]], dtype=np.int32)
    rows = sum(segment.row_count for segment in made.segments)
    options: dict[str, Any] = {}
    valid: list[U8 | None] = [None, None, None]
    if kept is not None:
        live, wanted = (rng.random((2, rows)) < kept).astype(np.uint8)
        options = {
            "live": np.packbits(live, bitorder="little"),
            "filters": np.packbits(wanted, bitorder="little")[None, :],
            "filter_of": np.array([0, -1, 0], dtype=np.int32),
        }
        valid = [live & wanted, live, live & wanted]
    contract = Contract(*bits, tables)
    for isa in ISAS:
        found = _search(
            made, isa, queries, lists, k, threads=threads, table_bits=bits[0],
            sum_bits=bits[1], integers=tables is TablesBy.CARD, **options,
        )  # fmt: skip
        assert found.stopped == ""
        for q in range(3):
            _check(found, q, reference(made, queries[q], lists[q], k, contract, valid[q]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [128, 256])
def test_long_codes_and_full_groups(isa: str, m: int) -> None:
    sizes = ((511, 512, 513, 1025, 64),)
    made = make(Shape(Metric.L2, True, m, 1, sizes), seed=m)
    queries = np.random.default_rng(3).normal(size=(2, m)).astype(np.float32)
    lists = np.array([[0, 1, 2], [3, 4, -1]], dtype=np.int32)
    found = _search(made, isa, queries, lists, 40)
    for q in range(2):
        _check(found, q, reference(made, queries[q], lists[q], 40, Contract(), None))


@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_k_there_is(isa: str) -> None:
    made = make(Shape(sizes=((3000, 2100),), distinct=2), seed=8)
    queries = np.random.default_rng(3).normal(size=(1, 8)).astype(np.float32)
    lists = np.array([[1, 0]], dtype=np.int32)
    for threads in (1, 2):
        found = _search(made, isa, queries, lists, 4096, threads=threads)
        _check(found, 0, reference(made, queries[0], lists[0], 4096, Contract(), None))


@pytest.mark.parametrize("isa", ISAS)
def test_more_tables_than_are_kept_are_made_again_to_the_same_bits(isa: str) -> None:
    nlist = 80
    made = make(Shape(m=64, sub=1, sizes=((2,) * nlist,)), seed=4)
    queries = np.random.default_rng(3).normal(size=(1, 64)).astype(np.float32)
    lists = np.arange(nlist, dtype=np.int32)[None, :]
    found = _search(made, isa, queries, lists, 9)
    _check(found, 0, reference(made, queries[0], lists[0], 9, Contract(), None))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_refines_with_stored_vectors(isa: str, half: bool, metric: Metric) -> None:
    made = make(Shape(metric, m=5, sub=7, sizes=((30, 80), (0, 66)), half=half), seed=6)
    queries = np.random.default_rng(3).normal(size=(2, 35)).astype(np.float32)
    lists = np.array([[1, 0], [1, -1]], dtype=np.int32)
    found = _search(made, isa, queries, lists, 4, refine_k=20)
    for q in range(2):
        _, candidates = reference(made, queries[q], lists[q], 20, Contract(), None)
        _check(found, q, refined(made, queries[q], candidates, 4))


def test_a_search_that_nobody_waits_for_ends() -> None:
    made = make(Shape(), seed=1)
    queries, lists = np.zeros((1, 8), np.float32), np.zeros((1, 1), np.int32)
    cancel = scan.Cancel()
    cancel.set()
    assert _search(made, ISAS[0], queries, lists, 1, cancel=cancel).stopped == "cancelled"
    late = scan.Cancel(0.0)
    assert _search(made, ISAS[0], queries, lists, 1, cancel=late).stopped == "deadline"


def test_a_row_id_out_of_range_is_reported_not_used() -> None:
    made = make(Shape(sizes=((5,),)), seed=1)
    made.segments[0].ids[3] = 4_000_000_000
    found = _search(made, ISAS[0], np.zeros((1, 8), np.float32), np.zeros((1, 1), np.int32), 5)
    assert (found.stopped, found.corrupt_segment, found.corrupt_offset) == ("corrupt", 0, 12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table_bits": 12}, "table_bits"),
        ({"sum_bits": 25}, "sum_bits"),
        ({"sum_bits": 16}, "sum_bits"),
        ({"k": 0}, "k"),
        ({"lists": np.array([[4]], np.int32)}, "lists"),
        ({"lists": np.array([[0]], np.int64)}, "lists"),
        ({"queries": np.zeros((1, 9), np.float32)}, "queries"),
        ({"refine_k": 5}, "vectors"),
        ({"filters": np.zeros((1, 9), np.uint8)}, "filter_of"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {
        "queries": np.zeros((1, 8), np.float32),
        "lists": np.zeros((1, 1), np.int32),
        "k": 1,
    } | change
    with pytest.raises(ValueError, match=says):
        _search(make(Shape(), seed=1), ISAS[0], **arguments)
