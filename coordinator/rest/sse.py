"""Server-sent events: framing, heartbeats, and an end when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from starlette.types import Send

from coordinator.rest.call import Call
from coordinator.rest.encode import to_json
from coordinator.rest.errors import error_object, hidden_defect
from coordinator.rest.guard import Guard
from ragschema.errors import Cancelled, InternalError, RagrigError
from ragschema.types import CallContext

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_PING = b": still working\n\n"


def frame(event: str, data: object) -> bytes:
    """One typed event; JSON never holds a raw line break."""
    return b"event: %b\ndata: %b\n\n" % (event.encode("ascii"), to_json(data))


def data_frame(data: object) -> bytes:
    """One untyped event, as OpenAI clients read it."""
    return b"data: %b\n\n" % to_json(data)


class EventStream:
    """An answer that is sent while it is made.

    The response starts with the first frame, so an error before it still gets
    its own status code; one after it becomes an ``error`` event.

    Args:
        frames: encoded events; closing it must stop the work behind it.
        error_frame: encodes the error object of a late error.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        context: CallContext,
        error_frame: Callable[[object], bytes],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._frames = frames
        self._context = context
        self._error_frame = error_frame
        self._heartbeat_s = heartbeat_s
        self._started = False

    async def send(self, call: Call, send: Send) -> None:
        """Runs the stream to its end; raises only before the first frame."""

        async def ping() -> None:
            if self._started:
                await _send_part(send, _PING)

        async with contextlib.aclosing(self._frames) as frames:
            try:
                with Guard(call.receive, self._context, ping, self._heartbeat_s):
                    async for part in frames:
                        await self._send_first_or_next(send, part)
            except Cancelled:
                raise
            except RagrigError as error:
                await self._report(call, send, error)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if not self._started:
                    raise
                log.exception("defect in a stream, trace %s", call.trace_id, exc_info=error)
                await self._report(call, send, hidden_defect())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_first_or_next(self, send: Send, part: bytes) -> None:
        if not self._started:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            self._started = True
        await _send_part(send, part)

    async def _report(self, call: Call, send: Send, error: RagrigError) -> None:
        if not self._started:
            raise error
        call.exchange.error_type = error.type_name
        if isinstance(error, InternalError):
            log.error("stream failed, trace %s: %s", call.trace_id, error)
        await _send_part(send, self._error_frame(error_object(error, call.trace_id)))


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})
