"""Searches to protobuf messages and back; everything that arrives is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import convert as c
from ragschema.wire import retrieval_pb2
from ragschema.wire import searches as s
from tests.ragschema.wire.making import same, search_batches, search_results, through_bytes


@given(search_batches())
def test_searches_round_trip(batch: t.SearchBatch) -> None:
    back = s.search_from_wire(through_bytes(s.search_to_wire(batch)), 4096)
    assert (back.snapshot, back.shards, back.k, back.refine_k) == (
        batch.snapshot, batch.shards, batch.k, batch.refine_k,
    )  # fmt: skip
    assert same(batch.queries, back.queries)
    assert same(batch.list_ids, back.list_ids)
    assert same(batch.filter_of, back.filter_of)
    assert len(back.filters) == len(batch.filters)
    assert all(same(a, b) for a, b in zip(batch.filters, back.filters, strict=True))


def a_search() -> retrieval_pb2.SearchRequest:
    return s.search_to_wire(
        t.SearchBatch(
            snapshot=t.SnapshotId("docs", 1),
            shards=(0,),
            queries=np.ones((2, 4), np.float32),
            list_ids=np.zeros((2, 3), np.int32),
            k=5,
            refine_k=10,
            filters=(np.zeros(2, np.uint8),),
            filter_of=np.array([0, -1], np.int32),
        )
    )


def put(name: str, array: NDArray[Any]) -> Callable[[retrieval_pb2.SearchRequest], None]:
    return lambda message: getattr(message, name).CopyFrom(c.tensor_to_wire(array))


def nan_query() -> NDArray[Any]:
    array = np.ones((2, 4), np.float32)
    array[1, 3] = np.nan
    return array


BAD_SEARCHES: dict[str, tuple[Callable[[retrieval_pb2.SearchRequest], Any], str]] = {
    "no queries": (lambda m: m.ClearField("queries"), "queries"),
    "a NaN": (put("queries", nan_query()), "queries"),
    "float16 queries": (put("queries", np.ones((2, 4), np.float16)), "queries"),
    "one query without rows": (put("queries", np.ones(4, np.float32)), "queries"),
    "k of 0": (lambda m: setattr(m, "k", 0), "k"),
    "k too large": (lambda m: setattr(m, "k", 101), "k"),
    "refine_k of 0": (lambda m: setattr(m, "refine_k", 0), "refine_k"),
    "refine_k too large": (lambda m: setattr(m, "refine_k", 101), "refine_k"),
    "lists of another count": (put("list_ids", np.zeros((3, 3), np.int32)), "list_ids"),
    "lists of int64": (put("list_ids", np.zeros((2, 3), np.int64)), "list_ids"),
    "filter past the end": (put("filter_of", np.array([0, 1], np.int32)), "filter_of"),
    "filter below -1": (put("filter_of", np.array([0, -2], np.int32)), "filter_of"),
    "filters of another count": (put("filter_of", np.array([0], np.int32)), "filter_of"),
}


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_a_bad_search_names_the_field(name: str) -> None:
    change, field = BAD_SEARCHES[name]
    message = a_search()
    s.search_from_wire(message, 100)
    change(message)
    with pytest.raises(e.InvalidInput) as caught:
        s.search_from_wire(message, 100)
    assert caught.value.field == field


@given(search_results())
def test_results_round_trip(result: t.SearchResult) -> None:
    back = s.result_from_wire(through_bytes(s.result_to_wire(result)))
    assert same(result.distances, back.distances)
    assert same(result.row_ids, back.row_ids)
    assert same(result.counts, back.counts)
    assert (back.rows_covered, back.stats) == (result.rows_covered, result.stats)


def a_result() -> retrieval_pb2.SearchReply:
    return s.result_to_wire(
        t.SearchResult(
            np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.full(2, 3, np.int32), 9
        )
    )


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("row_ids", np.zeros((2, 4), np.int64)),
        ("row_ids", np.zeros((2, 3), np.int32)),
        ("distances", np.zeros((1, 3), np.float32)),
        ("distances", np.full((2, 3), np.nan, np.float32)),
        ("counts", np.zeros(3, np.int32)),
        ("counts", np.array([0, 4], np.int32)),
        ("counts", np.array([-1, 0], np.int32)),
        ("counts", np.zeros((2, 1), np.int32)),
    ],
)
def test_a_reply_that_does_not_fit_is_the_upstreams_fault(name: str, array: NDArray[Any]) -> None:
    """A node's mistake must not look like the user's."""
    message = a_result()
    s.result_from_wire(message)
    getattr(message, name).CopyFrom(c.tensor_to_wire(array))
    with pytest.raises(e.UpstreamError):
        s.result_from_wire(message)
