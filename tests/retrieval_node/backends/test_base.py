from __future__ import annotations

import numpy as np

from retrieval_node.backends.base import Candidates, merge_candidates


def _part(*rows: tuple[float, int], width: int) -> Candidates:
    distances = np.zeros((1, width), dtype=np.float32)
    ids = np.zeros((1, width), dtype=np.int64)
    for i, (distance, row) in enumerate(rows):
        distances[0, i], ids[0, i] = distance, row
    return Candidates(distances, ids, np.array([len(rows)], dtype=np.int32), 5)


def test_merges_by_distance_then_row_and_ignores_empty_slots() -> None:
    merged = merge_candidates(
        [_part((1.0, 9), (2.0, 4), width=3), _part((-1.0, 8), (1.0, 2), width=3)], 3
    )
    assert merged.rows.tolist() == [[8, 2, 9]]
    assert merged.distances.tolist() == [[-1.0, 1.0, 1.0]]
    assert merged.counts.tolist() == [3]
    assert merged.codes_scanned == 10


def test_what_lies_past_the_counts_is_zero() -> None:
    merged = merge_candidates([_part((7.0, 9), width=2), _part(width=2)], 2)
    assert merged.rows.tolist() == [[9, 0]]
    assert merged.distances.tolist() == [[7.0, 0.0]]
    assert merged.counts.tolist() == [1]
