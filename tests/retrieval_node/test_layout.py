from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragschema.types import I64, U8
from retrieval_node.layout import deal, group_codes, grouped_bytes, lane_offsets, ungroup_codes


@settings(max_examples=80, deadline=None)
@given(
    list_of=st.lists(st.integers(0, 5), max_size=120),
    shards=st.integers(1, 5),
    first=st.integers(0, 10**9),
)
def test_every_list_and_the_whole_are_even(list_of: list[int], shards: int, first: int) -> None:
    lists = np.array(list_of, dtype=np.int64)
    layouts = deal(lists, 6, shards, first)
    assert sorted(np.concatenate([x.rows for x in layouts]).tolist()) == list(range(len(lists)))
    sizes = [len(x.rows) for x in layouts]
    assert max(sizes) - min(sizes) <= 1
    per_list = np.array([np.diff(x.list_offsets) for x in layouts])
    assert (per_list.max(axis=0) - per_list.min(axis=0) <= 1).all()
    for layout in layouts:
        for number in range(6):
            rows = layout.rows[layout.list_offsets[number] : layout.list_offsets[number + 1]]
            assert (lists[rows] == number).all()
            assert (np.diff(rows) > 0).all()


def test_many_small_segments_spread_over_the_shards() -> None:
    one = np.zeros(1, dtype=np.int64)
    sizes = np.zeros(3, dtype=np.int64)
    for first in range(100, 130):
        sizes += [len(x.rows) for x in deal(one, 1, 3, first)]
    assert sizes.tolist() == [10, 10, 10]


def reference_grouped(codes: U8, offsets: I64) -> U8:
    """The layout's definition, byte by byte."""
    m = codes.shape[1]
    out = []
    for first, last in itertools.pairwise(offsets.tolist()):
        left = last - first
        while left > 0:
            blocks = min(8, -(-left // 64))
            group = np.zeros((m, blocks * 64), dtype=np.uint8)
            for lane in range(min(left, blocks * 64)):
                group[:, lane] = codes[last - left + lane]
            out.append(group.reshape(-1))
            left -= blocks * 64
    return np.concatenate(out) if out else np.zeros(0, dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.sampled_from([0, 0, 1, 2, 63, 64, 65, 128, 511, 512, 513, 600, 1100]),
        min_size=1,
        max_size=5,
    ),
    m=st.sampled_from([1, 3, 4, 16]),
    seed=st.integers(0, 1000),
)
def test_grouping_is_as_defined_and_can_be_undone(sizes: list[int], m: int, seed: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    codes = np.random.default_rng(seed).integers(0, 256, (int(offsets[-1]), m), dtype=np.uint8)
    grouped = group_codes(codes, offsets)
    np.testing.assert_array_equal(grouped, reference_grouped(codes, offsets))
    assert len(grouped) == grouped_bytes(offsets, m)
    np.testing.assert_array_equal(ungroup_codes(grouped, offsets, m), codes)


def test_lists_start_at_whole_blocks() -> None:
    offsets = np.array([0, 1, 1, 65, 130], dtype=np.int64)
    assert lane_offsets(offsets).tolist() == [0, 64, 64, 128, 256]
