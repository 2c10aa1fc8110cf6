"""One message for many requests."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from coordinator.stages.effort import Effort
from coordinator.stages.retrieve import RetrieveRequest, to_batch
from coordinator.stages.row_filter import Reach, RowFilter
from ragschema.types import U8, SnapshotId


class Known:
    """As much of a snapshot as a message needs."""

    id = SnapshotId("notes", 4)


KNOWN = cast(Any, Known())


def request(value: float, k: int = 3, bitmap: U8 | None = None, **more: Any) -> RetrieveRequest:
    vector = np.full(4, value, np.float32)
    row_filter = None if bitmap is None else RowFilter(bitmap, 1, 0.1)
    effort = Effort(more.get("nprobe"), more.get("refine_k"), None, None)
    first = more.get("nprobe", 0)
    reach = Reach(first, more.get("most", first))
    return RetrieveRequest(KNOWN, None, vector, k, effort, reach, row_filter)


def test_the_largest_k_serves_all() -> None:
    batch = to_batch([request(1, 3), request(2, 9), request(3, 5)], None)
    assert batch.k == 9
    assert batch.queries.tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert batch.queries.flags.c_contiguous
    assert batch.snapshot == SnapshotId("notes", 4)
    assert batch.filters == ()
    assert batch.filter_of is None


def test_each_filter_is_sent_once() -> None:
    one, two = np.array([1], np.uint8), np.array([2], np.uint8)
    requests = [request(0, bitmap=b) for b in (two, None, one, two, None, one)]
    batch = to_batch(requests, None)
    assert [f.tolist() for f in batch.filters] == [[2], [1]]
    assert batch.filter_of is not None
    assert batch.filter_of.dtype == np.int32
    assert batch.filter_of.tolist() == [0, -1, 1, 0, -1, 1]


def test_only_what_a_node_can_serve_together_has_one_key() -> None:
    plain = request(1, nprobe=4, refine_k=8)
    assert plain.key() == request(2, 50, np.zeros(1, np.uint8), nprobe=4, refine_k=8).key()
    assert plain.key() != request(1, nprobe=4, refine_k=9).key()


def test_list_counts_of_one_key_are_within_a_factor_of_four() -> None:
    keys: dict[Any, list[int]] = {}
    for nprobe in range(1, 5000):
        keys.setdefault(request(1, nprobe=nprobe).key(), []).append(nprobe)
    assert len(keys) == 7
    assert all(max(counts) < 4 * min(counts) for counts in keys.values())


def test_who_may_come_back_for_more_does_not_keep_others_waiting() -> None:
    assert request(1, nprobe=4).key() != request(1, nprobe=4, most=16).key()


def test_an_exact_search_neither_probes_nor_refines() -> None:
    batch = to_batch([request(1, nprobe=4, refine_k=8)], None, exact=True)
    assert batch.exact
    assert batch.list_ids is None
    assert batch.refine_k is None
