"""The hand-written reader and writer against the protobuf library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import raw, retrieval_pb2
from ragschema.wire import searches as s
from tests.ragschema.wire.making import U32, U64, Words, same, search_batches, search_results


def assert_same_tensor(a: s.TensorParts | None, b: s.TensorParts | None) -> None:
    if a is None or b is None:
        assert a is b
        return
    assert (a.dtype, a.shape, bytes_of(a.data)) == (b.dtype, b.shape, bytes_of(b.data))


def bytes_of(span: Any) -> bytes:
    return bytes(span.source[span.start : span.stop])


def assert_same_search(a: s.SearchParts, b: s.SearchParts) -> None:
    for name in ("queries", "list_ids", "filter_of"):
        assert_same_tensor(getattr(a, name), getattr(b, name))
    assert [bytes_of(f) for f in a.filters] == [bytes_of(f) for f in b.filters]
    for name in (
        "collection", "generation", "shards", "k", "refine_k", "exact", "request_id",
        "timeout_ms", "cancel", "trace_id",
    ):  # fmt: skip
        assert getattr(a, name) == getattr(b, name), name


def assert_same_batch(a: t.SearchBatch, b: t.SearchBatch) -> None:
    assert (a.snapshot, a.shards, a.k, a.refine_k, a.exact) == (
        b.snapshot, b.shards, b.k, b.refine_k, b.exact,
    )  # fmt: skip
    assert same(a.queries, b.queries)
    assert same(a.list_ids, b.list_ids)
    assert same(a.filter_of, b.filter_of)
    assert len(a.filters) == len(b.filters)
    assert all(same(x, y) for x, y in zip(a.filters, b.filters, strict=True))


@given(search_batches(), U64, U32)
def test_what_protobuf_writes_is_read_the_same(
    batch: t.SearchBatch, request_id: int, timeout_ms: int
) -> None:
    message = s.search_to_wire(batch)
    message.request_id, message.timeout_ms = request_id, timeout_ms
    data = message.SerializeToString()
    assert_same_search(raw.read_search(data), s.search_parts(message))
    assert_same_batch(s.batch_from_parts(raw.read_search(data), 4096), batch)


@given(search_batches(), U64, U32, Words)
def test_what_is_written_here_protobuf_reads(
    batch: t.SearchBatch, request_id: int, timeout_ms: int, trace_id: str
) -> None:
    data = raw.write_search(batch, request_id, timeout_ms, trace_id)
    message = retrieval_pb2.SearchRequest.FromString(data)
    assert (message.request_id, message.timeout_ms) == (request_id, timeout_ms)
    assert message.trace_id == trace_id
    assert_same_batch(s.search_from_wire(message, 4096), batch)
    assert_same_search(raw.read_search(data), s.search_parts(message))


@given(search_batches(), search_results())
def test_tensors_written_here_are_used_in_place(
    batch: t.SearchBatch, result: t.SearchResult
) -> None:
    data = raw.write_search(batch)
    read = s.batch_from_parts(raw.read_search(data), 4096)
    for array in (read.queries, read.list_ids, read.filter_of, *read.filters):
        assert array is None or not array.size or np.shares_memory(array, np.frombuffer(data, "u1"))
    data = raw.write_reply(result)
    back = s.result_from_parts(raw.read_reply(data))
    for found in (back.distances, back.row_ids, back.counts):
        assert not found.size or np.shares_memory(found, np.frombuffer(data, np.uint8))


def test_data_that_are_not_aligned_are_copied_and_right() -> None:
    queries = np.arange(12, dtype=np.float32).reshape(3, 4)
    seen = set()
    for length in range(8):
        batch = t.SearchBatch(t.SnapshotId("c" * (length + 1), 1), (), queries, None, 1)
        data = s.search_to_wire(batch).SerializeToString()
        read = s.batch_from_parts(raw.read_search(data), 10).queries
        assert read.flags.aligned
        assert same(read, queries)
        seen.add(bool(np.shares_memory(read, np.frombuffer(data, np.uint8))))
    assert seen == {True, False}


@given(search_results(), U64)
def test_replies_both_ways(result: t.SearchResult, request_id: int) -> None:
    data = raw.write_reply(result, request_id)
    message = retrieval_pb2.SearchReply.FromString(data)
    assert message.request_id == request_id
    for parts in (
        raw.read_reply(data),
        s.reply_parts(message),
        raw.read_reply(message.SerializeToString()),
    ):
        back = s.result_from_parts(parts)
        assert parts.request_id == request_id
        assert same(back.distances, result.distances)
        assert same(back.row_ids, result.row_ids)
        assert same(back.counts, result.counts)
        assert (back.rows_covered, back.stats) == (result.rows_covered, result.stats)


def test_an_error_of_a_stream_both_ways() -> None:
    data = raw.write_error(e.Overloaded("full", retry_after_s=0.25, hint="later"), 7)
    message = retrieval_pb2.SearchReply.FromString(data)
    assert (message.request_id, message.error.type) == (7, "overloaded")
    parts = raw.read_reply(data)
    assert parts.error == message.error
    assert parts.error is not None
    assert parts.error.retry_after_ms == 250


def test_giving_up_names_the_request() -> None:
    message = retrieval_pb2.SearchRequest.FromString(raw.write_cancel(9))
    assert (message.request_id, message.cancel) == (9, True)


A_SEARCH = raw.write_search(
    t.SearchBatch(
        t.SnapshotId("docs", 3), (0, 300), np.ones((2, 3), np.float32), np.ones((2, 2), np.int32),
        5, 9, (np.ones(2, np.uint8),), np.array([0, -1], np.int32),
    )
)  # fmt: skip

edits = st.lists(
    st.tuples(st.integers(0, len(A_SEARCH) - 1), st.integers(0, 255)), min_size=1, max_size=3
)


@given(edits, st.integers(0, len(A_SEARCH)), st.binary(max_size=12))
@example([(0, 0)], len(A_SEARCH), b"")
def test_changed_bytes_are_refused_or_read_as_protobuf_reads_them(
    edits: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    changed = bytearray(A_SEARCH)
    for at, value in edits:
        changed[at] = value
    data = bytes(changed[:cut]) + tail
    try:
        parts = raw.read_search(data)
    except e.InvalidInput as error:
        assert error.field == "request"
        return
    assert_same_search(parts, s.search_parts(retrieval_pb2.SearchRequest.FromString(data)))


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_read_as_protobuf_reads_them(data: bytes) -> None:
    try:
        parts = raw.read_reply(data)
    except e.UpstreamError:
        return
    message = retrieval_pb2.SearchReply.FromString(data)
    other = s.reply_parts(message)
    for name in ("distances", "row_ids", "counts"):
        assert_same_tensor(getattr(parts, name), getattr(other, name))
    assert parts.stats == other.stats
    assert (parts.rows_covered, parts.request_id) == (other.rows_covered, other.request_id)
    assert parts.error == other.error


@given(st.lists(st.sampled_from([A_SEARCH, b"\x18\x00", b"\x28\x07"]), min_size=2, max_size=3))
def test_fields_that_come_twice_are_merged(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    message = retrieval_pb2.SearchRequest.FromString(data)
    try:
        parts = raw.read_search(data)
    except e.InvalidInput:
        assert b"\x18\x00" in pieces  # queries as a number: protobuf passes over it
        return
    assert_same_search(parts, s.search_parts(message))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a", id="a tag without a value"),
        pytest.param(b"\x0a\x05ab", id="fewer bytes than announced"),
        pytest.param(b"\x28\xff", id="a number that does not end"),
        pytest.param(b"\x28" + b"\xff" * 10 + b"\x01", id="a number of 11 bytes"),
        pytest.param(b"\x00\x00", id="field 0"),
        pytest.param(b"\x9b\x01\x9c\x01", id="a group"),
        pytest.param(b"\x9f\x01", id="wire type 7"),
        pytest.param(b"\x0a\x04\x0a\x02\xff\xfe", id="a name that is not UTF-8"),
        pytest.param(b"\x1a\x04\x1a\x7fab", id="a tensor longer than its message"),
        pytest.param(b"\x0d\x00", id="a fixed32 of one byte"),
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(e.InvalidInput) as caught:
        raw.read_search(data)
    assert caught.value.field == "request"
    if data[:1] != b"\x9b":  # a well-formed group is fine for protobuf
        with pytest.raises(DecodeError):
            retrieval_pb2.SearchRequest.FromString(data)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = b"\xa0\x06\x01" + b"\xaa\x06\x02ab" + b"\xb5\x06abcd" + b"\xb1\x06abcdefgh"
    assert_same_search(raw.read_search(A_SEARCH + later), raw.read_search(A_SEARCH))


@pytest.mark.parametrize("name", ["list_ids", "refine_k"])
def test_an_exact_search_has_no_lists_and_no_refinement(name: str) -> None:
    batch = t.SearchBatch(
        t.SnapshotId("docs", 1), (0,), np.ones((1, 2), np.float32), None, 1, exact=True
    )
    assert s.batch_from_parts(raw.read_search(raw.write_search(batch)), 9).exact
    value: Any = np.zeros((1, 1), np.int32) if name == "list_ids" else 3
    data = raw.write_search(replace(batch, **{name: value}))
    with pytest.raises(e.InvalidInput) as caught:
        s.batch_from_parts(raw.read_search(data), 9)
    assert caught.value.field == name
