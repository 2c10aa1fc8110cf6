from __future__ import annotations

import numpy as np
import pytest

from ragschema.errors import InvalidInput
from ragschema.types import F32, I64, Metric, SearchBatch, SearchResult, SearchStats, SnapshotId
from retrieval_node import measure
from retrieval_node.shard import ShardSet
from retrieval_node.shard_files import make_index


def test_the_ladder_ends_with_every_list() -> None:
    assert measure.ladder(1) == [1]
    assert measure.ladder(10) == [1, 2, 3, 4, 6, 8, 10]
    assert measure.ladder(64)[-2:] == [48, 64]


def _set(nlist: int = 4) -> ShardSet:
    centroids = np.arange(nlist * 2, dtype=np.float32).reshape(nlist, 2)
    index = make_index(Metric.L2, centroids, np.zeros((2, 256, 1), dtype=np.float32))
    return ShardSet(SnapshotId("x", 1), Metric.L2, 2, 1, 500, index, False, None, {})


def _answering(rows: I64) -> measure.Search:
    """Every query finds these rows, in this order; ten codes are scanned per list."""

    def search(batch: SearchBatch) -> SearchResult:
        assert batch.list_ids is not None
        n = len(batch.queries)
        found = np.zeros((n, batch.k), dtype=np.int64)
        count = min(batch.k, len(rows))
        found[:, :count] = rows[:count]
        return SearchResult(
            np.zeros((n, batch.k), dtype=np.float32),
            found,
            np.full(n, count, dtype=np.int32),
            500,
            SearchStats(codes_scanned=10 * batch.list_ids.size),
        )

    return search


def _queries(n: int) -> F32:
    return np.zeros((n, 2), dtype=np.float32)


def _asked(near: list[int], own: int = -1) -> measure.Questions:
    rows = np.array([near] * 3, dtype=np.int64)
    return measure.Questions(_queries(3), np.full(3, own, dtype=np.int64), rows, 10)


def test_deeper_refinement_finds_what_the_scan_ranked_low() -> None:
    rows = np.arange(100, 400)
    # Five of the truth among the first ten, three more among the first 40.
    questions = _asked([100, 101, 102, 103, 104, 115, 125, 139, 7, 8])
    curve = measure.curve(_set(), _answering(rows), [questions], refine=True, steps=[2], enough=1.0)
    found = {p.refine_factor: p.recall_at_10 for p in curve}
    expected = {None: 0.5, 2: 0.6, 4: 0.8, 6: 0.8, 8: 0.8, 12: 0.8, 16: 0.8}
    assert found == pytest.approx(expected)
    assert {p.codes_per_query for p in curve} == {20.0}


def test_a_querys_own_row_neither_counts_nor_takes_a_place() -> None:
    rows = np.arange(100, 400)
    questions = _asked(list(range(101, 111)), own=100)
    (point,) = measure.curve(
        _set(), _answering(rows), [questions], refine=False, steps=[1], enough=1.0
    )
    assert point.recall_at_10 == 1.0


def test_the_worse_kind_of_query_counts() -> None:
    rows = np.arange(100, 400)
    kinds = [_asked(list(range(100, 110))), _asked([100, *range(9)])]
    (point,) = measure.curve(_set(), _answering(rows), kinds, refine=False, steps=[1], enough=1.0)
    assert point.recall_at_10 == pytest.approx(0.1)


def test_a_curve_ends_where_it_is_high_enough_or_flat() -> None:
    rows = np.arange(100, 400)
    good, poor = _asked(list(range(100, 110))), _asked([100, *range(9)])
    steps = [1, 2, 3, 4]
    high = measure.curve(_set(), _answering(rows), [good], refine=False, steps=steps, enough=0.9)
    flat = measure.curve(_set(), _answering(rows), [poor], refine=False, steps=steps, enough=0.9)
    assert [p.nprobe for p in high] == [1]
    assert [p.nprobe for p in flat] == [1, 2, 3]


def test_rows_as_near_as_the_last_true_one_count_too() -> None:
    distances = np.array([[0, 1, 2, 2, 2, 3]], dtype=np.float32)
    rows = np.array([[9, 5, 1, 2, 3, 4]])
    counts = np.array([6], dtype=np.int32)
    own = np.array([9])
    asked = measure.questions_of(_queries(1), own, distances, rows, counts, 2)
    assert asked.near.tolist() == [[-1, 5, 1, 2, 3, -1]]


def test_fewer_rows_than_wanted_are_all_near() -> None:
    distances = np.array([[1, 2, 0]], dtype=np.float32)
    rows = np.array([[5, 6, 0]])
    counts = np.array([2], dtype=np.int32)
    asked = measure.questions_of(_queries(1), np.array([-1]), distances, rows, counts, 3)
    assert asked.near.tolist() == [[5, 6, -1]]


@pytest.mark.parametrize("shape", [(3, 9), (2, 10), (30,)])
def test_truth_that_does_not_fit_its_queries_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        measure.given(_queries(3), np.zeros(shape, dtype=np.int64), 10)
    assert caught.value.field == "truth"
    assert "[3, 10]" in (caught.value.hint or "")
