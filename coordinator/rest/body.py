"""Reads a request's body: only JSON, never more than allowed, never forever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.types import Receive

from ragschema.errors import Cancelled, DeadlineExceeded, PayloadTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from coordinator.rest.call import Exchange

_JSON = b"application/json"
_READ_TIMEOUT_S = 60.0


def media_type(exchange: Exchange) -> tuple[str, dict[str, str]]:
    """Content type in lower case and its parameters."""
    raw = exchange.headers.get(b"content-type", b"").decode("latin-1")
    kind, *rest = raw.split(";")
    pairs = (part.split("=", 1) for part in rest if "=" in part)
    parameters = {name.strip().lower(): value.strip().strip('"') for name, value in pairs}
    return kind.strip().lower(), parameters


def require_json(exchange: Exchange) -> None:
    """Raises UnsupportedMediaType for anything but JSON in UTF-8, not compressed."""
    headers = exchange.headers
    if headers.get(b"content-type") != _JSON:
        kind, parameters = media_type(exchange)
        charset = parameters.get("charset", "utf-8").lower()
        if kind != "application/json" or charset not in ("utf-8", "utf8"):
            raise UnsupportedMediaType(
                f"the body's content type is {kind[:80] or 'missing'!r}",
                field="content-type",
                hint="send application/json in UTF-8",
            )
    refuse_encoded(exchange)


def refuse_encoded(exchange: Exchange) -> None:
    """Raises UnsupportedMediaType for a compressed body."""
    encoding = exchange.headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise UnsupportedMediaType(
            f"the body is encoded with {encoding.decode('latin-1')[:40]!r}",
            field="content-encoding",
            hint="send it uncompressed",
        )


async def read_body(exchange: Exchange, receive: Receive, most_bytes: int) -> bytes:
    """The whole body; raises as ``stream_body`` does."""
    check_announced(exchange, most_bytes)
    parts: list[bytes] = []
    total = 0
    while not exchange.body_done:
        parts.append(await _next_part(exchange, receive))
        total += len(parts[-1])
        if total > most_bytes:
            raise _too_large(most_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def stream_body(
    exchange: Exchange, receive: Receive, most_bytes: int
) -> AsyncIterator[bytes]:
    """The body piece by piece.

    Raises:
        PayloadTooLarge: announced or found to be longer than ``most_bytes``.
        Cancelled: the client left before it was complete.
        DeadlineExceeded: nothing came for a minute.
    """
    check_announced(exchange, most_bytes)
    total = 0
    while not exchange.body_done:
        part = await _next_part(exchange, receive)
        total += len(part)
        if total > most_bytes:
            raise _too_large(most_bytes)
        yield part


async def _next_part(exchange: Exchange, receive: Receive) -> bytes:
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            message = await receive()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"no more of the body came for {_READ_TIMEOUT_S:.0f} s", hint="send it faster"
        ) from error
    if message["type"] == "http.disconnect":
        raise Cancelled("the client closed the connection")
    exchange.body_done = not message.get("more_body", False)
    part: bytes = message.get("body", b"")
    return part


def check_announced(exchange: Exchange, most_bytes: int) -> None:
    """Refuses by Content-Length before a byte of the body is read."""
    announced = exchange.headers.get(b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)


def _too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is larger than {most_bytes} bytes",
        field="body",
        hint="send less at a time; the rig file's coordinator.limits sets the bound",
    )
