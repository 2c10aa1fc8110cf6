"""The two halves of the contract apart: the host's tables, the device's scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import I64, U8, Metric
from retrieval_node.fixedpoint import Contract, saturating_sums, scan_tables, smallest
from retrieval_node.layout import group_codes, lane_offsets
from retrieval_node.native.loader import native
from tests.retrieval_node.native.contract_reference import Shape, make

scan: Any = native()
pytestmark = pytest.mark.skipif(scan is None, reason="the extension was not built")
ISAS: tuple[str, ...] = () if scan is None else tuple(scan.machine_isas())


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 9),
    sub=st.integers(1, 9),
    probes=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    exponent=st.sampled_from([-30, -20, -3, 0, 14]),
    metric=st.sampled_from(list(Metric)),
    residual=st.booleans(),
    bits=st.sampled_from([8, 16]),
    flat=st.booleans(),
)
def test_tables_equal_the_reference_bit_for_bit(
    seed: int, m: int, sub: int, probes: list[int], exponent: int, metric: Metric,
    residual: bool, bits: int, flat: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    shape = Shape(metric, residual, m, sub, ((1,) * 11,), exponent=exponent)
    made = make(shape, seed)
    if flat:
        made.codebooks[:] = made.codebooks[:, :1]
    queries = (10.0**exponent * rng.normal(size=(len(probes), m * sub))).astype(np.float32)
    chosen = [rng.permutation(11)[:count] for count in probes]
    lists = np.concatenate(chosen).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(probes)]).astype(np.int64)
    per_list = metric is Metric.L2 and residual
    contract = Contract(table_bits=bits)
    for isa in ISAS:
        tables = np.full((len(lists) if per_list else len(probes), m * 256), 7, dtype=np.uint16)
        biases = np.full(len(lists), -1, dtype=np.int64)
        bases = np.full(len(probes), np.nan)
        scales = np.full(len(probes), np.nan, dtype=np.float32)
        scan.contract_tables(
            made.index(isa), queries, lists, starts, bits, contract.sum_bits,
            tables, biases, bases, scales,
        )  # fmt: skip
        for q, own in enumerate(chosen):
            want = scan_tables(
                queries[q], made.centroids[own], made.codebooks, metric, contract, residual
            )
            part = slice(starts[q], starts[q + 1])
            got = tables[part] if per_list else tables[q : q + 1]
            np.testing.assert_array_equal(got.reshape(want.tables.shape), want.tables)
            np.testing.assert_array_equal(biases[part], want.biases)
            assert (bases[q], scales[q]) == (want.base, want.scale)


class Device:
    """Lists laid out for a scan, and the scan of them by the reference."""

    def __init__(self, seed: int, m: int, sizes: list[int], distinct: int, bias: int) -> None:
        rng = np.random.default_rng(seed)
        self.m, n = m, sum(sizes)
        self.borders: I64 = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.codes: U8 = rng.integers(0, 256, (n, m), dtype=np.uint8)
        self.grouped = group_codes(self.codes, self.borders)
        self.ids = rng.permutation(10 * n + 1)[:n].astype(np.uint32)
        self.tables = rng.integers(0, distinct, (len(sizes), m * 256)).astype(np.uint16)
        lanes = lane_offsets(self.borders)
        self.jobs = np.zeros((len(sizes), 6), dtype=np.int64)
        self.jobs[:, 0] = lanes[:-1] * m
        self.jobs[:, 1] = sizes
        self.jobs[:, 2] = self.borders[:-1]
        self.jobs[:, 3] = np.arange(len(sizes))
        self.jobs[:, 4] = rng.integers(bias, bias + 3, len(sizes))
        self.jobs[:, 5] = -1

    def run(self, isa: str, alive: U8, k: int, sum_max: int, row_start: int) -> Any:
        sums, rows = np.full((1, k), -1, np.int64), np.full((1, k), -1, np.int64)
        counts = np.full(1, -1, np.int32)
        starts = np.array([0, len(self.jobs)], dtype=np.int64)
        scanned = scan.contract_scan(
            self.jobs, starts, self.grouped, self.ids, row_start, alive, self.tables, self.m,
            sum_max, sums, rows, counts, isa,
        )  # fmt: skip
        assert scanned == len(self.codes)
        count = counts[0]
        return list(zip(sums[0, :count].tolist(), rows[0, :count].tolist(), strict=True))

    def reference(self, valid: Any, k: int, contract: Contract, row_start: int) -> Any:
        sums = np.concatenate(
            [
                saturating_sums(
                    self.tables[t].reshape(self.m, 256),
                    int(self.jobs[t, 4]),
                    self.codes[self.borders[t] : self.borders[t + 1]],
                    contract,
                )
                for t in range(len(self.jobs))
            ]
        )[valid]
        rows = self.ids.astype(np.int64)[valid] + row_start
        best = smallest(sums, rows, k)
        return list(zip(sums[best].tolist(), rows[best].tolist(), strict=True))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.sampled_from([1, 3, 16]),
    sizes=st.lists(st.sampled_from([0, 1, 30, 63, 64, 65, 511, 512, 513]), min_size=1, max_size=4),
    k=st.sampled_from([1, 10, 40]),
    distinct=st.sampled_from([1, 3, 256, 257, 65536]),
    sum_bits=st.sampled_from([17, 20, 24]),
    near_top=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.5]),
    row_start=st.sampled_from([0, 5, 1 << 33]),
)
def test_scan_equals_the_reference(
    seed: int, m: int, sizes: list[int], k: int, distinct: int, sum_bits: int, near_top: bool,
    share: float | None, row_start: int,
) -> None:  # fmt: skip
    contract = Contract(sum_bits=sum_bits)
    low = contract.sum_max - 70_000 if near_top else 0
    device = Device(seed, m, sizes, distinct, low)
    valid = np.ones(sum(sizes), dtype=bool)
    alive = np.zeros(0, dtype=np.uint8)
    if share is not None:
        valid = np.random.default_rng(seed).random(sum(sizes)) < share
        bits = np.zeros(10 * sum(sizes) + 8, dtype=np.uint8)
        bits[device.ids[valid]] = 1
        live = np.packbits(bits, bitorder="little")
        nobody = np.full(len(sizes), -1, dtype=np.int64)
        asked = (device.jobs, device.ids, 0, live, None, nobody)
        alive = np.full(scan.contract_masks(*asked, None), 0xA5, dtype=np.uint8)
        scan.contract_masks(*asked, alive)
    want = device.reference(valid, k, contract, row_start)
    for isa in ISAS:
        assert device.run(isa, alive, k, contract.sum_max, row_start) == want


def test_masks_follow_the_bitmaps() -> None:
    rng = np.random.default_rng(2)
    ids = rng.permutation(200).astype(np.uint32)
    live, *filters = rng.integers(0, 256, (3, 26), dtype=np.uint8)
    jobs = np.zeros((3, 6), dtype=np.int64)
    jobs[:, 1], jobs[:, 2] = (10, 70, 0), (0, 10, 80)
    filter_of = np.array([1, -1, 0], dtype=np.int64)
    out = np.full(24, 9, dtype=np.uint8)
    asked = (jobs, ids, 4, live, np.stack(filters), filter_of)
    assert scan.contract_masks(*asked, None) == 24
    assert scan.contract_masks(*asked, out) == 24
    assert jobs[:, 5].tolist() == [0, 64, 192]
    bits = [np.unpackbits(b, bitorder="little").astype(bool) for b in (live, *filters)]
    got = np.unpackbits(out, bitorder="little").astype(bool)
    rows = ids.astype(np.int64) + 4
    np.testing.assert_array_equal(got[:10], (bits[0] & bits[2])[rows[:10]])
    np.testing.assert_array_equal(got[64:134], bits[0][rows[10:80]])
    assert not got[10:64].any()
    assert not got[134:].any()
    with pytest.raises(ValueError, match="fewer bytes"):
        scan.contract_masks(*asked, out[:23].copy())
    with pytest.raises(ValueError, match="filter of job 0"):
        scan.contract_masks(jobs, ids, 4, live, None, filter_of, None)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (0, 65, "offset"),
        (0, -1, "offset"),
        (1, 6, "row count"),
        (1, -1, "row count"),
        (2, 1, "first row"),
        (3, 1, "table"),
        (4, 1 << 24, "bias"),
        (4, -1, "bias"),
        (5, 0, "lane mask"),
        (5, 5, "lane mask"),
    ],
)
def test_refuses_jobs_outside_their_arrays(field: int, value: int, says: str) -> None:
    device = Device(1, 1, [5], 10, 0)
    device.jobs[0, field] = value
    with pytest.raises(ValueError, match=f"{says} of job 0"):
        device.run(ISAS[0], np.zeros(0, np.uint8), 3, (1 << 24) - 1, 0)


def test_refuses_rows_beyond_forty_bits() -> None:
    device = Device(1, 1, [5], 10, 0)
    with pytest.raises(ValueError, match="row_start"):
        device.run(ISAS[0], np.zeros(0, np.uint8), 3, (1 << 24) - 1, 1 << 40)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.1e15, -1.1e15])
def test_what_is_no_ordinary_number_is_seen(bad: float) -> None:
    queries = np.full((3, 40), 1e15, dtype=np.float32)
    assert scan.ordinary(queries)
    queries[2, 17] = bad
    assert not scan.ordinary(queries)


def test_lists_are_distinct_and_in_range() -> None:
    lists = np.array([[0, 5, -1, 3, -1], [-1, 3, 0, 5, 2]], dtype=np.int32)
    assert scan.distinct_lists(lists, 6)
    assert not scan.distinct_lists(lists, 5)
    assert not scan.distinct_lists(lists - 1, 6)
    assert not scan.distinct_lists(np.array([[4, 1, 4]], np.int32), 6)
