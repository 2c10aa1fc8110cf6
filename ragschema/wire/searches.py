"""Searches and their answers between the wire and ragrig's own types.

A message is first taken apart into ``SearchParts`` or ``ReplyParts``, by the
protobuf library here or by ``raw`` from the bytes themselves; both are then
checked by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import common_pb2, retrieval_pb2
from ragschema.wire.convert import (
    Span,
    require_finite,
    snapshot_to_wire,
    tensor_to_wire,
    unpack_tensor,
)

_NOTHING = Span(b"")


@dataclass(slots=True, eq=False)
class TensorParts:
    """A Tensor as it came."""

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    data: Span = _NOTHING


@dataclass(slots=True, eq=False)
class SearchParts:
    """A SearchRequest as it came; names and meaning as in retrieval.proto."""

    collection: str = ""
    generation: int = 0
    shards: list[int] = field(default_factory=list)
    queries: TensorParts = field(default_factory=TensorParts)
    list_ids: TensorParts | None = None
    k: int = 0
    refine_k: int | None = None
    filters: list[Span] = field(default_factory=list)
    filter_of: TensorParts | None = None
    exact: bool = False
    request_id: int = 0
    timeout_ms: int = 0
    cancel: bool = False
    trace_id: str = ""


@dataclass(slots=True, eq=False)
class ReplyParts:
    """A SearchReply as it came."""

    distances: TensorParts = field(default_factory=TensorParts)
    row_ids: TensorParts = field(default_factory=TensorParts)
    counts: TensorParts = field(default_factory=TensorParts)
    rows_covered: int = 0
    stats: t.SearchStats = field(default_factory=t.SearchStats)
    request_id: int = 0
    error: common_pb2.ErrorDetail | None = None


def batch_from_parts(parts: SearchParts, max_k: int) -> t.SearchBatch:
    """Checks everything that does not need the loaded collection.

    Raises:
        InvalidInput: naming the field, when a value is out of its range.
    """
    queries = _unpack(parts.queries, np.float32, 2, "queries")
    require_finite(queries, "queries")
    n = queries.shape[0]
    for name, value in (("k", parts.k), ("refine_k", parts.refine_k)):
        if value is not None and not 1 <= value <= max_k:
            raise e.InvalidInput(f"{value} is not in 1..{max_k}", field=name)
    lists = None
    if parts.list_ids is not None:
        lists = _unpack(parts.list_ids, np.int32, 2, "list_ids")
        if lists.shape[0] != n:
            raise e.InvalidInput(f"{lists.shape[0]} rows for {n} queries", field="list_ids")
    if parts.exact:
        _check_exact(parts)
    return t.SearchBatch(
        snapshot=t.SnapshotId(parts.collection, parts.generation),
        shards=tuple(parts.shards),
        queries=queries,
        list_ids=lists,
        k=parts.k,
        refine_k=parts.refine_k,
        filters=tuple(_bitmap(span) for span in parts.filters),
        filter_of=_filter_of(parts, n),
        exact=parts.exact,
    )


def _check_exact(parts: SearchParts) -> None:
    for name in ("list_ids", "refine_k"):
        if getattr(parts, name) is not None:
            raise e.InvalidInput(
                "an exact search compares with every stored vector",
                field=name,
                hint="leave it out, or leave exact out",
            )


def _bitmap(span: Span) -> t.U8:
    stop = len(span.source) if span.stop is None else span.stop
    if stop == span.start:
        return np.zeros(0, np.uint8)
    return np.frombuffer(span.source, np.uint8, stop - span.start, span.start)


def _filter_of(parts: SearchParts, n: int) -> t.I32 | None:
    if parts.filter_of is None:
        return None
    chosen: t.I32 = _unpack(parts.filter_of, np.int32, 1, "filter_of")
    if chosen.shape[0] != n:
        raise e.InvalidInput(f"{chosen.shape[0]} entries for {n} queries", field="filter_of")
    if n and not (int(chosen.min()) >= -1 and int(chosen.max()) < len(parts.filters)):
        raise e.InvalidInput(f"an index is outside -1..{len(parts.filters) - 1}", field="filter_of")
    return chosen


def _unpack(parts: TensorParts, dtype: type[np.generic], ndim: int, name: str) -> NDArray[Any]:
    return unpack_tensor(parts.dtype, parts.shape, parts.data, dtype, ndim, name)


def result_from_parts(parts: ReplyParts) -> t.SearchResult:
    """Raises UpstreamError when the node's arrays are not what was agreed."""
    try:
        distances = _unpack(parts.distances, np.float32, 2, "distances")
        row_ids = _unpack(parts.row_ids, np.int64, 2, "row_ids")
        counts = _unpack(parts.counts, np.int32, 1, "counts")
        require_finite(distances, "distances")
    except e.InvalidInput as error:
        raise e.UpstreamError(f"a retrieval node answered with a bad array: {error}") from error
    fits = distances.shape == row_ids.shape and counts.shape == distances.shape[:1]
    if not fits or not ((counts >= 0) & (counts <= distances.shape[1])).all():
        raise e.UpstreamError("a retrieval node answered with arrays that do not fit together")
    return t.SearchResult(
        distances=distances,
        row_ids=row_ids,
        counts=counts,
        rows_covered=parts.rows_covered,
        stats=parts.stats,
    )


def search_to_wire(batch: t.SearchBatch) -> retrieval_pb2.SearchRequest:
    """For clients that speak protobuf; ``raw.write_search`` gives the bytes at once."""
    message = retrieval_pb2.SearchRequest(
        snapshot=snapshot_to_wire(batch.snapshot),
        shards=list(batch.shards),
        queries=tensor_to_wire(batch.queries),
        k=batch.k,
        filters=[bitmap.tobytes() for bitmap in batch.filters],
        exact=batch.exact,
    )
    if batch.refine_k is not None:
        message.refine_k = batch.refine_k
    if batch.list_ids is not None:
        message.list_ids.CopyFrom(tensor_to_wire(batch.list_ids))
    if batch.filter_of is not None:
        message.filter_of.CopyFrom(tensor_to_wire(batch.filter_of))
    return message


def search_from_wire(message: retrieval_pb2.SearchRequest, max_k: int) -> t.SearchBatch:
    """Raises InvalidInput as ``batch_from_parts`` does."""
    return batch_from_parts(search_parts(message), max_k)


def search_parts(message: retrieval_pb2.SearchRequest) -> SearchParts:
    """A parsed request, taken apart."""
    lists, chosen = message.HasField("list_ids"), message.HasField("filter_of")
    return SearchParts(
        collection=message.snapshot.collection,
        generation=message.snapshot.generation,
        shards=list(message.shards),
        queries=_tensor_parts(message.queries),
        list_ids=_tensor_parts(message.list_ids) if lists else None,
        k=message.k,
        refine_k=message.refine_k if message.HasField("refine_k") else None,
        filters=[Span(raw) for raw in message.filters],
        filter_of=_tensor_parts(message.filter_of) if chosen else None,
        exact=message.exact,
        request_id=message.request_id,
        timeout_ms=message.timeout_ms,
        cancel=message.cancel,
        trace_id=message.trace_id,
    )


def _tensor_parts(tensor: common_pb2.Tensor) -> TensorParts:
    return TensorParts(tensor.dtype, list(tensor.shape), Span(tensor.data))


def result_to_wire(result: t.SearchResult) -> retrieval_pb2.SearchReply:
    """For servers that speak protobuf; ``raw.write_reply`` gives the bytes at once."""
    return retrieval_pb2.SearchReply(
        distances=tensor_to_wire(result.distances),
        row_ids=tensor_to_wire(result.row_ids),
        counts=tensor_to_wire(result.counts),
        rows_covered=result.rows_covered,
        stats=stats_to_wire(result.stats),
    )


def result_from_wire(message: retrieval_pb2.SearchReply) -> t.SearchResult:
    """Raises UpstreamError as ``result_from_parts`` does."""
    return result_from_parts(reply_parts(message))


def reply_parts(message: retrieval_pb2.SearchReply) -> ReplyParts:
    """A parsed reply, taken apart."""
    return ReplyParts(
        distances=_tensor_parts(message.distances),
        row_ids=_tensor_parts(message.row_ids),
        counts=_tensor_parts(message.counts),
        rows_covered=message.rows_covered,
        stats=stats_from_wire(message.stats),
        request_id=message.request_id,
        error=message.error if message.HasField("error") else None,
    )


def stats_to_wire(stats: t.SearchStats) -> retrieval_pb2.SearchStats:
    return retrieval_pb2.SearchStats(
        codes_scanned=stats.codes_scanned,
        bytes_scanned=stats.bytes_scanned,
        survivors=stats.survivors,
        batch_queries=stats.batch_queries,
        queue_us=stats.queue_us,
        scan_us=stats.scan_us,
        refine_us=stats.refine_us,
    )


def stats_from_wire(message: retrieval_pb2.SearchStats) -> t.SearchStats:
    return t.SearchStats(
        codes_scanned=message.codes_scanned,
        bytes_scanned=message.bytes_scanned,
        survivors=message.survivors,
        batch_queries=message.batch_queries,
        queue_us=message.queue_us,
        scan_us=message.scan_us,
        refine_us=message.refine_us,
    )
