"""Searches and answers of every kind, and how messages are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ragschema import types as t

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
Words = st.text(max_size=20)


def through_bytes(message: Any) -> Any:
    """What a peer parses."""
    return type(message).FromString(message.SerializeToString())


def same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@st.composite
def search_batches(draw: st.DrawFn) -> t.SearchBatch:
    n, dim, probes = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    finite = st.floats(-1e6, 1e6, width=32)
    filters = draw(st.lists(hnp.arrays(np.uint8, st.integers(0, 4)), max_size=3))
    chosen = hnp.arrays(np.int32, n, elements=st.integers(-1, len(filters) - 1))
    lists = hnp.arrays(np.int32, (n, probes), elements=st.integers(-1, 99))
    return t.SearchBatch(
        snapshot=t.SnapshotId(draw(Words), draw(U64)),
        shards=tuple(draw(st.lists(U32, max_size=4))),
        queries=draw(hnp.arrays(np.float32, (n, dim), elements=finite)),
        list_ids=draw(st.none() | lists),
        k=draw(st.integers(1, 4096)),
        refine_k=draw(st.none() | st.integers(1, 4096)),
        filters=tuple(filters),
        filter_of=draw(st.none() | chosen),
    )


@st.composite
def search_results(draw: st.DrawFn) -> t.SearchResult:
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    return t.SearchResult(
        distances=draw(hnp.arrays(np.float32, (n, k), elements=st.floats(-9, 9, width=32))),
        row_ids=draw(hnp.arrays(np.int64, (n, k))),
        counts=draw(hnp.arrays(np.int32, n, elements=st.integers(0, k))),
        rows_covered=draw(U64),
        stats=t.SearchStats(
            draw(U64), draw(U64), draw(U64), draw(U32), draw(U32), draw(U32), draw(U32)
        ),
    )
