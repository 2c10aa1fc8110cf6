"""One request at the edge: what endpoints may use, and what they may answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from coordinator.ingest.limits import ParseLimits
from coordinator.rest.guard import Guard
from coordinator.rest.upload_gate import UploadGate
from ragschema.types import CallContext

if TYPE_CHECKING:
    from coordinator.jobs.runner import JobRunner
    from coordinator.runtime import Runtime
    from ragschema.rig import LimitsConfig

SCOPE_KEY = "ragrig"
JSON_TYPE = (b"content-type", b"application/json")


@dataclass(frozen=True)
class Services:
    """What one server has to offer its endpoints."""

    runtime: Runtime
    jobs: JobRunner
    started_s: float
    uploads: UploadGate = field(default_factory=UploadGate)

    @property
    def limits(self) -> LimitsConfig:
        return self.runtime.rig.coordinator.limits

    @property
    def parse_limits(self) -> ParseLimits:
        """Bounds on reading an uploaded file."""
        limits = self.limits
        return ParseLimits(
            max_file_bytes=limits.max_upload_bytes,
            max_documents=limits.max_documents_per_upload,
            wall_s=limits.default_timeout_ms / 1000,
        )


class Exchange:
    """What the edge knows about a request before it is routed.

    Attributes:
        headers: by lower-case name; of a repeated header the last.
        body_done: whether the client's body was read to its end.
        status: of the response, 0 until it started.
        error_type: of the error that was answered, None when all went well.
    """

    __slots__ = ("body_done", "error_type", "headers", "services", "status", "trace_id")

    def __init__(self, services: Services, headers: dict[bytes, bytes], trace_id: str) -> None:
        self.services = services
        self.headers = headers
        self.trace_id = trace_id
        self.status = 0
        self.body_done = False
        self.error_type: str | None = None


@dataclass(frozen=True)
class Reply:
    """A whole answer: encoded body, status and extra headers."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)

    async def send(self, call: Call, send: Send) -> None:
        await send_whole(send, self.status, self.headers, self.body)


class Call(Request):
    """The request an endpoint gets."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.exchange = cast(Exchange, scope[SCOPE_KEY])
        self.services = self.exchange.services

    @property
    def trace_id(self) -> str:
        return self.exchange.trace_id

    def context(self, timeout_ms: int | None = None) -> CallContext:
        """Deadline and trace id of this request's work."""
        limits = self.services.limits
        chosen = min(limits.default_timeout_ms, limits.max_timeout_ms)
        timeout = chosen if timeout_ms is None else timeout_ms
        return CallContext(self.trace_id, time.monotonic() + timeout / 1000)

    def guard(self, context: CallContext) -> Guard:
        """Ends the work inside a ``with`` block when nobody waits for it any more."""
        return Guard(self.receive, context)


async def send_whole(
    send: Send, status: int, headers: tuple[tuple[bytes, bytes], ...] | list[Any], body: bytes
) -> None:
    """Sends a response whose body is known."""
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"content-length", b"%d" % len(body))],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
