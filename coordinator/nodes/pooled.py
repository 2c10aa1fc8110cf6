"""A client that may be closed under way, and who raised an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

import grpc

from ragschema.errors import RagrigError, Unavailable
from ragschema.types import CallContext
from ragschema.wire import convert
from ragschema.wire.client import NodeClient
from ragschema.wire.pipelined import AnsweredByNode


class PooledClient(NodeClient):
    """A client that may be closed while calls are in flight.

    Closing is how calls to a node that was declared dead end at once. gRPC
    reports that as a cancellation of the waiting task, which nobody asked for;
    here it becomes Unavailable.
    """

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address)
        self._closed = False

    async def call(self, method: Callable[..., Any], request: Any, context: CallContext) -> Any:
        if self._closed:
            raise self._gone(context)
        try:
            return await super().call(method, request, context)
        except asyncio.CancelledError:
            if self._closed and not _told_to_stop():
                raise self._gone(context) from None
            raise

    async def stream(
        self, method: Callable[..., Any], request: Any, context: CallContext
    ) -> AsyncIterator[Any]:
        if self._closed:
            raise self._gone(context)
        try:
            messages = cast("Any", super().stream(method, request, context))
            async with aclosing(messages):
                async for message in messages:
                    yield message
        except asyncio.CancelledError:
            if self._closed and not _told_to_stop():
                raise self._gone(context) from None
            raise

    async def close(self) -> None:
        self._closed = True
        await super().close()

    def _gone(self, context: CallContext) -> RagrigError:
        return Unavailable(
            f"node {self.name} at {self.address} does not answer",
            hint="see /readyz for the state of every node",
            trace_id=context.trace_id,
        )


def said_by_node(error: RagrigError) -> bool:
    """Whether the node itself raised it; False: the connection failed."""
    cause = error.__cause__
    if isinstance(cause, AnsweredByNode):
        return True
    if not isinstance(cause, grpc.RpcError):
        return False
    trailers = getattr(cause, "trailing_metadata", lambda: None)() or ()
    return any(key == convert.ERROR_METADATA_KEY for key, _ in trailers)


def _told_to_stop() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
