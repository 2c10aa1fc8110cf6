"""Searches over one long-lived stream to a retrieval node.

A unary call costs a node and its client several events; a request in a stream
is one message each way. The stream is opened by the first search and again
after it broke; what was in flight then fails like a broken call.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import grpc

from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    PayloadTooLarge,
    RagrigError,
    Unavailable,
)
from ragschema.types import CallContext, SearchBatch
from ragschema.wire.client import typed_error
from ragschema.wire.convert import error_from_wire
from ragschema.wire.raw import STREAM_METHOD, read_reply, write_cancel, write_search
from ragschema.wire.searches import ReplyParts
from ragschema.wire.serving import DEFAULT_MAX_MESSAGE_BYTES

_MAX_UINT32: Final = 0xFFFF_FFFF
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]


class AnsweredByNode(Exception):
    """The cause of an error that a node sent inside a stream."""


class PipelinedSearches:
    """Sends searches into a stream and hands each its reply; of one event loop.

    Args:
        node: the rig file's name, used in messages.
        max_message_bytes: that the node takes; a longer request would end the
            stream with everything in it, so it is not sent.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        node: str,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._open: Callable[[], Any] = cast(
            "Any", channel.stream_stream(STREAM_METHOD, bytes, bytes)
        )
        self._node = node
        self._numbers = itertools.count(1)
        self._stream: _Stream | None = None

    async def search(self, batch: SearchBatch, context: CallContext) -> ReplyParts:
        """One search; leaving it tells the node that nobody waits.

        Raises:
            RagrigError: the node's own error; Unavailable when the stream broke.
            DeadlineExceeded: the context's deadline passed.
            PayloadTooLarge: the request is longer than a node takes.
        """
        remaining_s = context.remaining_s()
        timeout_ms = min(_MAX_UINT32, math.ceil(remaining_s * 1e3))
        number = next(self._numbers)
        data = write_search(batch, number, timeout_ms, context.trace_id)
        if len(data) > self._max_message_bytes:
            raise PayloadTooLarge(
                f"a search of {len(data)} bytes is larger than the {self._max_message_bytes}"
                f" that node {self._node} takes",
                hint="ask fewer queries at once",
                trace_id=context.trace_id,
            )
        if self._stream is None or self._stream.ended:
            self._stream = _Stream(self._open(), self._node)
        stream = self._stream
        reply = stream.send(number, data)
        timer = asyncio.get_running_loop().call_later(remaining_s, _expire, reply)
        try:
            return await reply
        except RagrigError as error:
            error.trace_id = error.trace_id or context.trace_id
            raise
        finally:
            timer.cancel()
            stream.forget(number)

    async def close(self) -> None:
        """Ends the stream; searches in flight fail as Unavailable."""
        if self._stream is not None:
            await self._stream.close()


def _expire(reply: asyncio.Future[ReplyParts]) -> None:
    if not reply.done():
        reply.set_exception(
            DeadlineExceeded(
                "the deadline passed before the node answered",
                hint="allow more time with timeout_ms, or ask for less",
            )
        )


class _Stream:
    """One open stream and who waits for what in it."""

    def __init__(self, call: Any, node: str) -> None:
        self.ended = False
        self._call = call
        self._node = node
        self._waiting: dict[int, asyncio.Future[ReplyParts]] = {}
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._tasks = (asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write()))

    def send(self, number: int, data: bytes) -> asyncio.Future[ReplyParts]:
        reply: asyncio.Future[ReplyParts] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        self._post(data)
        return reply

    def forget(self, number: int) -> None:
        """Tells the node, unless it has answered."""
        if self._waiting.pop(number, None) is not None and not self.ended:
            self._post(write_cancel(number))

    async def close(self) -> None:
        self._call.cancel()
        self._end(Unavailable(f"the connection to node {self._node} was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _post(self, data: bytes) -> None:
        self._outbox.append(data)
        self._wake.set()

    async def _write(self) -> None:
        try:
            while True:
                while self._outbox:
                    await self._call.write(self._outbox.popleft())
                self._wake.clear()
                await self._wake.wait()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the reader learns why

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not _EOF:
                self._received(read_reply(data))
            self._end(Unavailable(f"node {self._node} ended the stream", hint="try again"))
        except grpc.RpcError as error:
            told = typed_error(error, self._node, None)
            told.__cause__ = error
            self._end(told)
        except asyncio.CancelledError:
            self._end(Cancelled(f"the stream to node {self._node} was cancelled"))
            raise
        except RagrigError as error:
            self._end(error)
        finally:
            self._call.cancel()
            self._tasks[1].cancel()

    def _received(self, parts: ReplyParts) -> None:
        reply = self._waiting.pop(parts.request_id, None)
        if reply is None or reply.done():
            return  # given up meanwhile
        if parts.error is None:
            reply.set_result(parts)
            return
        error = error_from_wire(parts.error)
        error.__cause__ = AnsweredByNode(error.type_name)
        reply.set_exception(error)

    def _end(self, error: RagrigError) -> None:
        self.ended = True
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            if not reply.done():
                own = copy.copy(error)
                own.__cause__ = error.__cause__
                reply.set_exception(own)
