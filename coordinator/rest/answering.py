"""Runs a query to its end for answers that are not streamed."""

from __future__ import annotations

import contextlib

from coordinator.rest.call import Call
from coordinator.types import DoneEvent, QuerySpec, RetrievalEvent, SearchOutcome
from ragschema.errors import UpstreamError
from ragschema.types import CallContext


async def collect_answer(
    call: Call, spec: QuerySpec, context: CallContext
) -> tuple[SearchOutcome, DoneEvent]:
    """What was found and the finished answer.

    Raises:
        UpstreamError: the generation ended without saying so.
    """
    outcome: SearchOutcome | None = None
    events = call.services.runtime.pipeline.query(spec, context)
    async with contextlib.aclosing(events) as source:
        async for event in source:
            if isinstance(event, RetrievalEvent):
                outcome = event.outcome
            elif isinstance(event, DoneEvent) and outcome is not None:
                return outcome, event
    raise UpstreamError(
        "the generator stopped before its answer was complete",
        hint="try again; the LLM node's log has the details",
    )
