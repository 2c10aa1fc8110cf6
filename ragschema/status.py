"""The one table from the error tree to HTTP and gRPC status."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from ragschema import errors as e


@dataclass(frozen=True)
class WireStatus:
    """What an error looks like on each wire."""

    http: int
    grpc: grpc.StatusCode


_TABLE: tuple[tuple[type[e.RagrigError], WireStatus], ...] = (
    (e.PayloadTooLarge, WireStatus(413, grpc.StatusCode.OUT_OF_RANGE)),
    (e.UnsupportedMediaType, WireStatus(415, grpc.StatusCode.INVALID_ARGUMENT)),
    (e.MethodNotAllowed, WireStatus(405, grpc.StatusCode.INVALID_ARGUMENT)),
    (e.UnreadableDocument, WireStatus(422, grpc.StatusCode.INVALID_ARGUMENT)),
    (e.IncompatibleRequest, WireStatus(422, grpc.StatusCode.FAILED_PRECONDITION)),
    (e.InvalidInput, WireStatus(422, grpc.StatusCode.INVALID_ARGUMENT)),
    (e.NotFound, WireStatus(404, grpc.StatusCode.NOT_FOUND)),
    (e.Conflict, WireStatus(409, grpc.StatusCode.ABORTED)),
    (e.Unauthenticated, WireStatus(401, grpc.StatusCode.UNAUTHENTICATED)),
    (e.Overloaded, WireStatus(429, grpc.StatusCode.RESOURCE_EXHAUSTED)),
    (e.DeadlineExceeded, WireStatus(504, grpc.StatusCode.DEADLINE_EXCEEDED)),
    (e.Cancelled, WireStatus(499, grpc.StatusCode.CANCELLED)),
    (e.InsufficientCoverage, WireStatus(503, grpc.StatusCode.UNAVAILABLE)),
    (e.DeviceFault, WireStatus(503, grpc.StatusCode.UNAVAILABLE)),
    (e.Unavailable, WireStatus(503, grpc.StatusCode.UNAVAILABLE)),
    (e.VersionMismatch, WireStatus(502, grpc.StatusCode.FAILED_PRECONDITION)),
    (e.UpstreamError, WireStatus(502, grpc.StatusCode.UNAVAILABLE)),
    (e.CorruptData, WireStatus(500, grpc.StatusCode.DATA_LOSS)),
    (e.InternalError, WireStatus(500, grpc.StatusCode.INTERNAL)),
    (e.RagrigError, WireStatus(500, grpc.StatusCode.INTERNAL)),
)


def status_of(error: e.RagrigError) -> WireStatus:
    """HTTP and gRPC status of an error; the most specific row wins."""
    for cls, status in _TABLE:
        if isinstance(error, cls):
            return status
    raise AssertionError("the table ends with the base class")


def error_class_of(code: grpc.StatusCode) -> type[e.RagrigError]:
    """The error class for a gRPC status that came without an ErrorDetail."""
    plain: dict[grpc.StatusCode, type[e.RagrigError]] = {
        grpc.StatusCode.INVALID_ARGUMENT: e.InvalidInput,
        grpc.StatusCode.OUT_OF_RANGE: e.PayloadTooLarge,
        grpc.StatusCode.NOT_FOUND: e.NotFound,
        grpc.StatusCode.ABORTED: e.Conflict,
        grpc.StatusCode.UNAUTHENTICATED: e.Unauthenticated,
        grpc.StatusCode.RESOURCE_EXHAUSTED: e.Overloaded,
        grpc.StatusCode.DEADLINE_EXCEEDED: e.DeadlineExceeded,
        grpc.StatusCode.CANCELLED: e.Cancelled,
        grpc.StatusCode.UNAVAILABLE: e.Unavailable,
        grpc.StatusCode.UNIMPLEMENTED: e.VersionMismatch,
        grpc.StatusCode.DATA_LOSS: e.CorruptData,
    }
    return plain.get(code, e.InternalError)
