"""Server-sent events of a streamed chat completion, read within bounds."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ragschema.errors import UpstreamError

#: No honest event is longer; an endless line must not fill the memory.
MAX_LINE_BYTES = 1 << 20
DONE = "[DONE]"


class Pairs:
    """Text in pieces that JSON may have cut between the halves of a surrogate pair.

    A first half waits for the next piece. What stays alone becomes U+FFFD, since half a
    character can neither be sent on nor shown.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-16-le")("replace")

    def take(self, piece: str) -> str:
        """What is certain by now."""
        return self._decoder.decode(piece.encode("utf-16-le", "surrogatepass"))

    def end(self) -> str:
        """What still waited."""
        return self._decoder.decode(b"", final=True)


async def read_lines(chunks: AsyncGenerator[bytes, None], server: str) -> AsyncGenerator[str, None]:
    """Lines of a byte stream, without their ends.

    Raises:
        UpstreamError: a line is longer than MAX_LINE_BYTES, or not UTF-8.
    """
    held = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                yield _text(line, server)
            if len(held) > MAX_LINE_BYTES:
                raise UpstreamError(f"{server} sent a line of over {MAX_LINE_BYTES} bytes")
    if held:
        yield _text(held, server)


async def read_events(
    chunks: AsyncGenerator[bytes, None], server: str
) -> AsyncGenerator[dict[str, Any], None]:
    """JSON objects of the ``data:`` lines up to ``[DONE]`` or the stream's end.

    Raises:
        UpstreamError: something else was sent, quoting how it begins.
    """
    async with aclosing(read_lines(chunks, server)) as lines:
        async for line in lines:
            name, colon, value = line.partition(":")
            if not line or name in ("", "event", "id", "retry"):
                continue
            if not colon or name != "data":
                raise UpstreamError(
                    f"{server} does not stream server-sent events: {line[:80]!r}",
                    hint="check that the URL is an OpenAI-compatible API",
                )
            value = value.strip()
            if value == DONE:
                return
            yield _parse(value, server)


def _parse(value: str, server: str) -> dict[str, Any]:
    try:
        event = json.loads(value)
    except ValueError as error:
        raise UpstreamError(f"{server} sent an event that is not JSON: {value[:80]!r}") from error
    except RecursionError as error:
        raise UpstreamError(f"{server} sent an event nested too deeply: {value[:80]!r}") from error
    if not isinstance(event, dict):
        raise UpstreamError(f"{server} sent an event that is no object: {value[:80]!r}")
    return event


def _text(line: bytes, server: str) -> str:
    try:
        return line.rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UpstreamError(f"{server} sent bytes that are not UTF-8") from error
