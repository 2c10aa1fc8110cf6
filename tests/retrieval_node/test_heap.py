from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_node.heap import offer, sort_heap


@settings(max_examples=80, deadline=None)
@given(
    keys=st.lists(st.integers(0, 6), max_size=60),
    k=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_keeps_the_smallest_by_key_then_row(keys: list[int], k: int, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(len(keys))
    heap_keys, heap_rows = np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
    size = 0
    for key, row in zip(keys, rows.tolist(), strict=True):
        size = offer(heap_keys, heap_rows, size, key, row)
    sort_heap(heap_keys, heap_rows, size)
    want = sorted(zip(keys, rows.tolist(), strict=True))[:k]
    got = list(zip(heap_keys[:size].tolist(), heap_rows[:size].tolist(), strict=True))
    assert got == want
