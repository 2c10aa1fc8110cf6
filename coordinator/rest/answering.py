"""Runs a query to its end for answers that are not streamed."""

from __future__ import annotations

import contextlib
import logging

from coordinator.rest.call import Call
from coordinator.types import DoneEvent, QuerySpec, RetrievalEvent, SearchOutcome
from ragschema.errors import DeviceFault, InsufficientCoverage, Unavailable, UpstreamError
from ragschema.types import CallContext

log = logging.getLogger(__name__)


async def collect_answer(
    call: Call, spec: QuerySpec, context: CallContext
) -> tuple[SearchOutcome, DoneEvent]:
    """What was found and the finished answer.

    Nobody has seen anything of it yet, so when the node that writes it is lost midway,
    it is begun anew, once, at another one.

    Raises:
        UpstreamError: the generation ended without saying so.
        Unavailable: a node was lost, and no other one could take over.
    """
    try:
        return await _collect(call, spec, context)
    except (InsufficientCoverage, DeviceFault):
        raise
    except Unavailable as error:
        log.warning("trace %s: begun anew: %s", context.trace_id, error)
    return await _collect(call, spec, context)


async def _collect(
    call: Call, spec: QuerySpec, context: CallContext
) -> tuple[SearchOutcome, DoneEvent]:
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
