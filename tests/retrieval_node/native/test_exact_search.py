"""Exact search and rescoring give the bits of ``fixedpoint.exact_distances``."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import F32, Metric
from retrieval_node.fixedpoint import exact_distances, smallest
from retrieval_node.native.loader import native

scan: Any = native()
pytestmark = pytest.mark.skipif(scan is None, reason="the extension was not built")
ISAS: tuple[str, ...] = () if scan is None else tuple(scan.machine_isas())


def _segment(vectors: np.ndarray[Any, Any], ids: Any, row_start: int, row_count: int) -> Any:
    offsets = np.array([0, len(ids)], dtype=np.int64)
    return scan.Segment(
        None, offsets, None, None, None, np.asarray(ids, np.uint32), row_start, row_count,
        vectors, None,
    )  # fmt: skip


def _check(found: Any, q: int, distances: F32, rows: Any, k: int) -> None:
    best = smallest(distances, rows, k)
    count = found.counts[q]
    assert found.stopped == ""
    assert count == len(best)
    assert found.rows[q, :count].tolist() == rows[best].tolist()
    assert found.distances[q, :count].tobytes() == distances[best].tobytes()
    assert not found.rows[q, count:].any()
    assert not found.distances[q, count:].any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([0, 1, 3, 63, 64, 65, 200]), min_size=1, max_size=3),
    dim=st.sampled_from([1, 2, 15, 16, 17, 33, 64, 100]),
    k=st.sampled_from([1, 3, 10, 300]),
    metric=st.sampled_from(list(Metric)),
    half=st.booleans(),
    copies=st.booleans(),
    exponent=st.sampled_from([-30, -7, -4, 0, 4]),
    n=st.sampled_from([1, 2, 17]),
    threads=st.sampled_from([1, 3]),
    kept=st.sampled_from([None, 0.0, 0.05, 0.5]),
)
def test_search_equals_the_reference(
    seed: int, sizes: list[int], dim: int, k: int, metric: Metric, half: bool, copies: bool,
    exponent: int, n: int, threads: int, kept: float | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    dtype = np.float16 if half else np.float32
    stored, row_ids, handles, start = [], [], [], 5
    for size in sizes:
        vectors = (10.0**exponent * rng.normal(size=(size, dim))).astype(dtype)
        if copies and size:
            vectors[:] = vectors[rng.integers(0, min(size, 3), size)]
        ids = rng.permutation(size + 9)[:size]
        handles.append(_segment(vectors, ids, start, size + 9))
        stored.append(vectors.astype(np.float32))
        row_ids.append(ids + start)
        start += size + 9
    queries = (10.0**exponent * rng.normal(size=(n, dim))).astype(np.float32)
    every, rows = np.concatenate(stored), np.concatenate(row_ids)
    options: dict[str, Any] = {}
    valid = np.ones((n, len(rows)), dtype=bool)
    if kept is not None:
        live, wanted = (rng.random((2, start)) < kept).astype(np.uint8)
        options = {
            "live": np.packbits(live, bitorder="little"),
            "filters": np.packbits(wanted, bitorder="little")[None, :],
            "filter_of": (np.arange(n) % 2 - 1).astype(np.int32),
        }
        valid &= live[rows].astype(bool)
        valid[1::2] &= wanted[rows].astype(bool)
    name = "l2" if metric is Metric.L2 else "ip"
    for isa in ISAS:
        found = scan.exact_search(handles, queries, k, name, scan.Pool(threads), isa=isa, **options)
        for q in range(n):
            own = exact_distances(queries[q], every[valid[q]], metric)
            _check(found, q, own, rows[valid[q]], k)


@pytest.mark.parametrize("isa", ISAS)
def test_every_float16_is_read_exactly(isa: str) -> None:
    """All finite bit patterns: subnormals, both zeros, the largest."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits[(bits & 0x7C00) != 0x7C00].view(np.float16)
    one = np.ones((1, 1), dtype=np.float32)
    segment = _segment(halves[:, None], np.arange(len(halves)), 0, len(halves))
    found = scan.exact_search([segment], one, len(halves), "ip", scan.Pool(1), isa=isa)
    want = exact_distances(one[0], halves[:, None].astype(np.float32), Metric.IP)
    order = np.lexsort((np.arange(len(halves)), want))
    assert found.rows[0].tolist() == order.tolist()
    assert found.distances[0].tobytes() == want[order].tobytes()
    # Sixteen at a time as well.
    wide = np.ascontiguousarray(halves[: len(halves) // 16 * 16].reshape(-1, 16))
    row = np.ones((1, 16), dtype=np.float32)
    segment = _segment(wide, np.arange(len(wide)), 0, len(wide))
    found = scan.exact_search([segment], row, len(wide), "l2", scan.Pool(1), isa=isa)
    _check(
        found, 0, exact_distances(row[0], wide.astype(np.float32), Metric.L2),
        np.arange(len(wide)), len(wide),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 40),
    metric=st.sampled_from(list(Metric)),
    k=st.integers(1, 12),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_rescoring_equals_the_reference(
    seed: int, dim: int, metric: Metric, k: int, counts: tuple[int, int]
) -> None:
    """Of segments with float16 and with float32 vectors, in one call."""
    rng = np.random.default_rng(seed)
    halves = rng.normal(size=(30, dim)).astype(np.float16)
    floats = rng.normal(size=(20, dim)).astype(np.float32)
    ids, more = rng.permutation(40)[:30], rng.permutation(25)[:20]
    segments = [_segment(halves, ids, 0, 40), _segment(floats, more, 40, 25)]
    every = np.concatenate([halves.astype(np.float32), floats])
    all_rows = np.concatenate([ids, more + 40])
    queries = rng.normal(size=(2, dim)).astype(np.float32)
    rows = np.zeros((2, 9), dtype=np.int64)
    picked = [rng.choice(50, count, replace=False) for count in counts]
    for q in range(2):
        rows[q, : counts[q]] = all_rows[picked[q]]
    name = "l2" if metric is Metric.L2 else "ip"
    for isa in ISAS:
        found = scan.rescore(
            segments, queries, rows, np.array(counts, np.int32), k, name, scan.Pool(2), isa
        )
        for q in range(2):
            own = exact_distances(queries[q], every[picked[q]], metric)
            _check(found, q, own, all_rows[picked[q]], k)


def test_a_forged_nan_is_never_found_and_breaks_nothing() -> None:
    vectors = np.full((200, 3), np.nan, dtype=np.float32)
    vectors[7] = 1.0
    segment = _segment(vectors, np.arange(200), 0, 200)
    queries = np.zeros((1, 3), dtype=np.float32)
    found = scan.exact_search([segment], queries, 5, "l2", scan.Pool(1))
    assert found.rows[0, : found.counts[0]].tolist() == [7]
    rows = np.arange(200, dtype=np.int64)[None, :]
    found = scan.rescore([segment], queries, rows, np.array([200], np.int32), 3, "l2", scan.Pool(1))
    assert found.rows[0, 0] == 7


def test_stops_when_nobody_waits() -> None:
    segment = _segment(np.zeros((5, 2), np.float32), np.arange(5), 0, 5)
    cancel = scan.Cancel()
    cancel.set()
    queries = np.zeros((1, 2), np.float32)
    found = scan.exact_search([segment], queries, 1, "l2", scan.Pool(1), cancel=cancel)
    assert found.stopped == "cancelled"


def test_a_row_id_out_of_range_is_reported_not_used() -> None:
    segment = _segment(np.zeros((5, 2), np.float32), [0, 1, 2, 9, 4], 0, 5)
    queries = np.zeros((1, 2), np.float32)
    found = scan.exact_search([segment], queries, 1, "l2", scan.Pool(1))
    assert (found.stopped, found.corrupt_segment, found.corrupt_offset) == ("corrupt", 0, 12)
    rows, counts = np.zeros((1, 1), np.int64), np.ones(1, np.int32)
    found = scan.rescore([segment], queries, rows, counts, 1, "l2", scan.Pool(1))
    assert found.stopped == "corrupt"


def test_refuses_what_does_not_fit() -> None:
    segment = _segment(np.zeros((5, 2), np.float32), np.arange(5), 0, 5)
    pool = scan.Pool(1)
    with pytest.raises(ValueError, match="dim is 3"):
        scan.exact_search([segment], np.zeros((1, 3), np.float32), 1, "l2", pool)
    with pytest.raises(ValueError, match="not l2 or ip"):
        scan.exact_search([segment], np.zeros((1, 2), np.float32), 1, "dot", pool)
    queries, rows = np.zeros((1, 2), np.float32), np.zeros((1, 1), np.int64)
    with pytest.raises(ValueError, match="counts"):
        scan.rescore([segment], queries, rows, np.array([2], np.int32), 1, "l2", pool)
    with pytest.raises(ValueError, match="rows"):
        scan.rescore([segment], queries, rows[:0], np.array([0], np.int32), 1, "l2", pool)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000, 70_001])
def test_checksums_are_those_of_zlib(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert scan.crc32(data) == zlib.crc32(data.tobytes())
