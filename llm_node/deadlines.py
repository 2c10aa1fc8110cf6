"""The caller's deadline, kept even where the work itself does not look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from ragschema.errors import DeadlineExceeded
from ragschema.types import CallContext
from ragschema.wire.serving import trace_id_of

T = TypeVar("T")

#: For a caller that names no deadline; nothing may run for ever.
LONGEST_CALL_S = 3600.0


def context_of(context: grpc.aio.ServicerContext[Any, Any]) -> CallContext:
    """The call's trace id and deadline."""
    left_s = context.time_remaining()
    return CallContext.start(
        LONGEST_CALL_S if left_s is None else min(left_s, LONGEST_CALL_S), trace_id_of(context)
    )


async def within(work: Awaitable[T], call: CallContext) -> T:
    """The work's result; raises DeadlineExceeded and cancels it when time is up."""
    try:
        async with asyncio.timeout(call.remaining_s()):
            return await work
    except TimeoutError as error:
        raise _passed(call) from error


async def events_within(
    events: AsyncGenerator[T, None], call: CallContext
) -> AsyncGenerator[T, None]:
    """The same for a stream; the timeout never spans a yield."""
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout(call.remaining_s()):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise _passed(call) from error
            yield event


def _passed(call: CallContext) -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline passed before the work was done",
        hint="allow more time, or ask for less",
        trace_id=call.trace_id,
    )
