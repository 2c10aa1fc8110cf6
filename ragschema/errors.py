"""The error tree.

Every failure that a user or a peer may see is one of these::

    RagrigError
    |-- InvalidInput            a value the caller sent is wrong
    |   |-- PayloadTooLarge     a body, file or message over its limit
    |   |-- UnreadableDocument  a document no parser can read
    |   |-- UnsupportedMediaType  a body of a content type we do not read
    |   |-- MethodNotAllowed    a path that exists, with another method
    |   `-- IncompatibleRequest well formed, but this collection cannot do it
    |-- NotFound                an unknown collection, document or job
    |-- Conflict                somebody else changes the same thing
    |-- Unauthenticated         no API key, or a wrong one
    |-- Overloaded              a bounded queue is full; try later
    |-- DeadlineExceeded        the caller's deadline passed
    |-- Cancelled               the caller went away
    |-- Unavailable             a node needed for the answer is away
    |   |-- InsufficientCoverage  too few shards answered
    |   `-- DeviceFault         an accelerator hung, failed or answered nonsense
    |-- VersionMismatch         a peer speaks another protocol
    |-- CorruptData             stored bytes are not what was written
    |-- UpstreamError           a server behind us failed or broke its protocol
    `-- InternalError           a defect of ours

``ragschema.status`` maps each to an HTTP and a gRPC status.
"""

from __future__ import annotations

from typing import ClassVar


class RagrigError(Exception):
    """Base of all errors ragrig raises on purpose.

    Args:
        message: what went wrong, one sentence, naming the value.
        field: path of the offending field, such as ``filters.year``.
        hint: what the caller can do about it.
        trace_id: the request it belongs to, filled in at the edge.
    """

    type_name: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.trace_id = trace_id

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class InvalidInput(RagrigError):
    type_name = "invalid_input"


class PayloadTooLarge(InvalidInput):
    type_name = "payload_too_large"


class UnreadableDocument(InvalidInput):
    type_name = "unreadable_document"


class UnsupportedMediaType(InvalidInput):
    type_name = "unsupported_media_type"


class MethodNotAllowed(InvalidInput):
    type_name = "method_not_allowed"


class IncompatibleRequest(InvalidInput):
    type_name = "incompatible_request"


class NotFound(RagrigError):
    type_name = "not_found"


class Conflict(RagrigError):
    type_name = "conflict"


class Unauthenticated(RagrigError):
    type_name = "unauthenticated"


class Overloaded(RagrigError):
    """A bounded queue is full.

    Args:
        retry_after_s: when a retry may succeed, for the Retry-After header.
    """

    type_name = "overloaded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        field: str | None = None,
        hint: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message, field=field, hint=hint, trace_id=trace_id)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RagrigError):
    type_name = "deadline_exceeded"


class Cancelled(RagrigError):
    type_name = "cancelled"


class Unavailable(RagrigError):
    type_name = "unavailable"


class InsufficientCoverage(Unavailable):
    type_name = "insufficient_coverage"


class DeviceFault(Unavailable):
    type_name = "device_fault"


class VersionMismatch(RagrigError):
    type_name = "version_mismatch"


class CorruptData(RagrigError):
    type_name = "corrupt_data"


class UpstreamError(RagrigError):
    type_name = "upstream_error"


class InternalError(RagrigError):
    type_name = "internal"


def all_error_types() -> dict[str, type[RagrigError]]:
    """Every concrete class of the tree by its ``type_name``."""
    found: dict[str, type[RagrigError]] = {}
    pending: list[type[RagrigError]] = list(RagrigError.__subclasses__())
    while pending:
        cls = pending.pop()
        found[cls.type_name] = cls
        pending.extend(cls.__subclasses__())
    return found
