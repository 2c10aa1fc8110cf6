"""Merging equals what one node with every row would have said."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.stages.merge import MergeStage, to_hits
from coordinator.types import Chunk
from ragschema.types import Metric, SearchResult

merge = MergeStage()


def answer(rows: list[list[tuple[float, int]]], k: int) -> SearchResult:
    """One node's answer: per query its own nearest k of (distance, row id)."""
    n = len(rows)
    distances = np.zeros((n, k), np.float32)
    row_ids = np.zeros((n, k), np.int64)
    counts = np.zeros(n, np.int32)
    for i, mine in enumerate(rows):
        best = sorted(mine)[:k]
        counts[i] = len(best)
        for j, (distance, row) in enumerate(best):
            distances[i, j], row_ids[i, j] = distance, row
    return SearchResult(distances, row_ids, counts, sum(map(len, rows)))


@given(
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(1, 3),
    # Few distances and both signs, so that ties are the rule.
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), max_size=30),
)
def test_it_equals_brute_force(shards: int, k: int, n: int, values: list[float]) -> None:
    everything = [
        [(values[(row + q) % len(values)], row) for row in range(len(values))] for q in range(n)
    ]
    results = [
        answer([[p for p in rows if p[1] % shards == s] for rows in everything], k)
        for s in range(shards)
    ]
    ranking = merge(results, n, k)
    for q in range(n):
        expected = sorted(everything[q])[:k]
        count = int(ranking.counts[q])
        got = list(
            zip(
                ranking.distances[q, :count].tolist(),
                ranking.row_ids[q, :count].tolist(),
                strict=True,
            )
        )
        assert got == expected


def test_unused_entries_never_win() -> None:
    few = answer([[(5.0, 3)]], 4)
    none = answer([[]], 4)
    ranking = merge([none, few, none], 1, 4)
    assert ranking.counts.tolist() == [1]
    assert ranking.row_ids[0, 0] == 3


def test_the_nodes_arrays_stay_as_they_are() -> None:
    result = answer([[(5.0, 3)]], 2)
    for array in (result.distances, result.row_ids, result.counts):
        array.setflags(write=False)
    ranking = merge([result, result], 1, 2)
    assert ranking.counts.tolist() == [2]


def test_no_answer_at_all_is_an_empty_ranking() -> None:
    ranking = merge([], 3, 5)
    assert ranking.counts.tolist() == [0, 0, 0]
    assert ranking.row_ids.shape == (3, 0)


def test_deleted_rows_are_left_out() -> None:
    class Deleted:
        def chunks(self, rows: list[int]) -> list[Chunk | None]:
            return [
                None if r == 2 else Chunk(r, f"c{r}", "d", "t", 0, 1, "x", (), 1, {}) for r in rows
            ]

    hits = to_hits(cast(Any, Deleted()), [0.5, 1.0, 2.0], [1, 2, 3], Metric.L2)
    assert [h.chunk.row_id for h in hits] == [1, 3]
    assert [h.score for h in hits] == [-0.5, -2.0]
