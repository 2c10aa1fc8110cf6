from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_node.layout import deal


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
