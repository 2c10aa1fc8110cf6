"""What an upstream server's failure means for the caller."""

from __future__ import annotations

import json
from typing import Any

import httpx

from ragschema.errors import (
    DeadlineExceeded,
    Overloaded,
    PayloadTooLarge,
    RagrigError,
    Unavailable,
    UpstreamError,
)

_MAX_QUOTE = 300


def error_of_status(response: httpx.Response, body: bytes, server: str, key: str) -> RagrigError:
    """The error for a reply that is no success; the server's own words are quoted.

    Args:
        body: the start of the reply.
        key: how to speak of the API key, for the hint.
    """
    status = response.status_code
    said = quote(body)
    message = f"{server} answered {status}" + (f": {said}" if said else "")
    if status in (401, 403):
        return UpstreamError(message, hint=f"check the API key ({key})")
    if status == 429:
        return Overloaded(message, retry_after_s=_retry_after_s(response))
    if status == 503:
        return Unavailable(message, hint="the server is starting or too busy; try again")
    if status == 413 or "context_length" in said or "context length" in said:
        return PayloadTooLarge(message, field="messages", hint="send fewer or shorter passages")
    if status == 404:
        return UpstreamError(message, hint="check the URL (it often ends in /v1) and the model")
    if 300 <= status < 400:
        return UpstreamError(message, hint="give the URL it redirects to")
    return UpstreamError(message)


def error_of_transport(error: httpx.HTTPError, server: str, read_s: float) -> RagrigError:
    """The error for a connection that failed, broke or stalled."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unavailable(
            f"cannot connect to {server}: {_reason(error)}", hint="check that it runs there"
        )
    if isinstance(error, httpx.PoolTimeout):
        return Overloaded(f"all connections to {server} are in use")
    if isinstance(error, httpx.TimeoutException):
        return DeadlineExceeded(
            f"{server} sent nothing for {read_s:g} s", hint="it may be overloaded; try again later"
        )
    return UpstreamError(f"the connection to {server} broke: {_reason(error)}")


def error_in_stream(event: dict[str, Any], server: str) -> UpstreamError:
    """The error for an event that carries one."""
    return UpstreamError(f"{server} reported an error: {quote_value(event)}")


def quote(body: bytes) -> str:
    """The message of an error body, on one line and short."""
    text = body.decode("utf-8", "replace")
    try:
        return quote_value(json.loads(text))
    except (ValueError, RecursionError):
        return _short(text)


def quote_value(value: object) -> str:
    """The same of JSON that is read already."""
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    try:
        return _short(value if isinstance(value, str) else json.dumps(value))
    except RecursionError:  # it was read where the stack was less deep
        return "a value nested too deeply"


def _short(text: str) -> str:
    """On one line; half a surrogate pair, which JSON can hold, could not be sent on."""
    line = " ".join(text.split())[:_MAX_QUOTE]
    return line.encode("utf-8", "replace").decode("utf-8")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(600.0, max(0.0, float(response.headers.get("retry-after", "1"))))
    except ValueError:
        return 1.0
