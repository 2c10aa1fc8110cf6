"""Search messages straight from and to bytes.

The protobuf library copies every tensor at least once on its way in and once
on its way out. A search's arrays are instead views of the bytes that gRPC
received, and a reply is put together once. Equal to the library in what it
reads, except that it refuses fields of a wrong wire type and groups.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import common_pb2, retrieval_pb2
from ragschema.wire.convert import error_to_wire
from ragschema.wire.fields import (
    BYTES,
    VARINT,
    Field,
    MessageWriter,
    expect,
    malformed,
    read_fields,
    read_span,
    read_text,
    read_uint32s,
    varint,
)
from ragschema.wire.searches import (
    ReplyParts,
    SearchParts,
    TensorParts,
    stats_from_wire,
    stats_to_wire,
)

SEARCH_METHOD = "/ragrig.wire.v1.RetrievalNode/Search"
STREAM_METHOD = "/ragrig.wire.v1.RetrievalNode/SearchStream"
_UINT32 = 0xFFFF_FFFF

Small = TypeVar("Small", common_pb2.ErrorDetail, retrieval_pb2.SearchStats)


def read_search(data: bytes) -> SearchParts:
    """A SearchRequest; its tensors stay in ``data``.

    Raises:
        InvalidInput: the bytes are no such message.
    """
    parts = SearchParts()
    for field in read_fields(data, 0, len(data)):
        number = field[0]
        if number == 3:
            _into_tensor(data, field, parts.queries)
        elif number == 4:
            parts.list_ids = _tensor(data, field, parts.list_ids)
        elif number == 8:
            parts.filter_of = _tensor(data, field, parts.filter_of)
        elif number == 1:
            _read_snapshot(data, field, parts)
        elif number == 2:
            read_uint32s(data, field, parts.shards)
        elif number == 7:
            parts.filters.append(read_span(data, field))
        elif number == 13:
            parts.trace_id = read_text(data, field)
        else:
            _read_search_number(field, parts)
    return parts


def _read_search_number(field: Field, parts: SearchParts) -> None:
    number, _, value, _ = field
    if number not in (5, 6, 9, 10, 11, 12):
        return  # of a later version; old readers pass over it
    expect(field, VARINT)
    if number == 5:
        parts.k = value & _UINT32
    elif number == 6:
        parts.refine_k = value & _UINT32
    elif number == 9:
        parts.exact = value != 0
    elif number == 10:
        parts.request_id = value
    elif number == 11:
        parts.timeout_ms = value & _UINT32
    else:
        parts.cancel = value != 0


def _read_snapshot(data: bytes, outer: Field, parts: SearchParts) -> None:
    expect(outer, BYTES)
    for field in read_fields(data, outer[2], outer[3]):
        if field[0] == 1:
            parts.collection = read_text(data, field)
        elif field[0] == 2:
            expect(field, VARINT)
            parts.generation = field[2]


def _tensor(data: bytes, field: Field, before: TensorParts | None) -> TensorParts:
    tensor = TensorParts() if before is None else before
    _into_tensor(data, field, tensor)
    return tensor


def _into_tensor(data: bytes, outer: Field, tensor: TensorParts) -> None:
    """A field that comes twice is merged, as protobuf has it."""
    expect(outer, BYTES)
    for field in read_fields(data, outer[2], outer[3]):
        if field[0] == 1:
            expect(field, VARINT)
            tensor.dtype = _int32(field[2])
        elif field[0] == 2:
            read_uint32s(data, field, tensor.shape)
        elif field[0] == 3:
            tensor.data = read_span(data, field)


def _int32(value: int) -> int:
    low = value & _UINT32
    return low - (1 << 32) if low >> 31 else low


def write_search(
    batch: t.SearchBatch, request_id: int = 0, timeout_ms: int = 0, trace_id: str = ""
) -> bytes:
    """A SearchRequest; everything but the batch is for streams."""
    snapshot = MessageWriter()
    if batch.snapshot.collection:
        snapshot.raw(1, batch.snapshot.collection.encode())
    snapshot.uint(2, batch.snapshot.generation)
    writer = MessageWriter()
    writer.raw(1, snapshot.message())
    if batch.shards:
        writer.raw(2, b"".join(map(varint, batch.shards)))
    writer.tensor(3, batch.queries)
    if batch.list_ids is not None:
        writer.tensor(4, batch.list_ids)
    writer.uint(5, batch.k)
    if batch.refine_k is not None:
        writer.present_uint(6, batch.refine_k)
    for bitmap in batch.filters:
        writer.raw(7, bitmap.tobytes() if not bitmap.flags.c_contiguous else bitmap)
    if batch.filter_of is not None:
        writer.tensor(8, batch.filter_of)
    writer.uint(9, batch.exact)
    writer.uint(10, request_id)
    writer.uint(11, timeout_ms)
    if trace_id:
        writer.raw(13, trace_id.encode())
    return writer.message()


def write_cancel(request_id: int) -> bytes:
    """A SearchRequest that gives up an earlier one of the same stream."""
    writer = MessageWriter()
    writer.uint(10, request_id)
    writer.uint(12, True)
    return writer.message()


def read_reply(data: bytes) -> ReplyParts:
    """A SearchReply; its tensors stay in ``data``.

    Raises:
        UpstreamError: the bytes are no such message.
    """
    try:
        return _read_reply(data)
    except e.InvalidInput as error:
        raise e.UpstreamError(f"a retrieval node answered with bad bytes: {error}") from error


def _read_reply(data: bytes) -> ReplyParts:
    parts = ReplyParts()
    stats: retrieval_pb2.SearchStats | None = None
    for field in read_fields(data, 0, len(data)):
        number = field[0]
        if number == 1:
            _into_tensor(data, field, parts.distances)
        elif number == 2:
            _into_tensor(data, field, parts.row_ids)
        elif number == 3:
            _into_tensor(data, field, parts.counts)
        elif number == 4:
            expect(field, VARINT)
            parts.rows_covered = field[2]
        elif number == 5:
            stats = _merged(data, field, stats or retrieval_pb2.SearchStats())
        elif number == 6:
            expect(field, VARINT)
            parts.request_id = field[2]
        elif number == 7:
            parts.error = _merged(data, field, parts.error or common_pb2.ErrorDetail())
    if stats is not None:
        parts.stats = stats_from_wire(stats)
    return parts


def _merged(data: bytes, field: Field, message: Small) -> Small:
    """Small messages without tensors are left to the library."""
    expect(field, BYTES)
    try:
        message.MergeFromString(data[field[2] : field[3]])
    except DecodeError as error:
        raise malformed("a message that cannot be parsed", field[2]) from error
    return message


def write_reply(result: t.SearchResult, request_id: int = 0) -> bytes:
    """A SearchReply with a result."""
    writer = MessageWriter()
    writer.tensor(1, result.distances)
    writer.tensor(2, result.row_ids)
    writer.tensor(3, result.counts)
    writer.uint(4, result.rows_covered)
    writer.raw(5, stats_to_wire(result.stats).SerializeToString())
    writer.uint(6, request_id)
    return writer.message()


def write_error(error: e.RagrigError, request_id: int) -> bytes:
    """A SearchReply of a stream for a request that failed."""
    writer = MessageWriter()
    writer.uint(6, request_id)
    writer.raw(7, error_to_wire(error).SerializeToString())
    return writer.message()
