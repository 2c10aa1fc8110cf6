"""A whole answer is begun anew, once, when the node that wrote it is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.rest.answering import collect_answer
from coordinator.types import (
    Coverage,
    DoneEvent,
    QueryEvent,
    QuerySpec,
    RetrievalEvent,
    SearchOutcome,
    SearchSpec,
    Timings,
    TokenEvent,
    Usage,
)
from ragschema.errors import (
    DeviceFault,
    InsufficientCoverage,
    Overloaded,
    RagrigError,
    Unavailable,
    UpstreamError,
)
from ragschema.types import CallContext, Sampling

SPEC = QuerySpec(SearchSpec("notes", 3, text="what?"), "what?", Sampling())
OUTCOME = SearchOutcome("notes", 1, (), Coverage(1.0), Timings(total_ms=1.0), Usage())


class Pipeline:
    """Fails with each of the errors in turn, in the middle of an answer; then answers."""

    def __init__(self, *errors: RagrigError | None) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.closed = 0

    async def query(self, spec: QuerySpec, context: CallContext) -> AsyncGenerator[QueryEvent]:
        self.asked += 1
        try:
            yield RetrievalEvent(OUTCOME)
            yield TokenEvent("All is ")
            error = self.errors.pop(0) if self.errors else None
            if error is not None:
                raise error
            done: Any = DoneEvent.__new__(DoneEvent)
            yield done
        finally:
            self.closed += 1


async def collected(pipeline: Pipeline) -> tuple[SearchOutcome, DoneEvent]:
    call: Any = SimpleNamespace(
        services=SimpleNamespace(runtime=SimpleNamespace(pipeline=pipeline))
    )
    return await collect_answer(call, SPEC, CallContext("t", time.monotonic() + 20))


async def test_an_answer_whose_node_was_lost_is_begun_anew() -> None:
    pipeline = Pipeline(Unavailable("lost while it answered"))
    outcome, done = await collected(pipeline)
    assert outcome is OUTCOME
    assert isinstance(done, DoneEvent)
    assert pipeline.asked == pipeline.closed == 2


async def test_it_is_begun_anew_only_once() -> None:
    pipeline = Pipeline(Unavailable("one"), Unavailable("two"))
    with pytest.raises(Unavailable, match="two"):
        await collected(pipeline)
    assert pipeline.asked == 2


@pytest.mark.parametrize(
    "error",
    [
        InsufficientCoverage("half"),
        DeviceFault("hung"),
        Overloaded("full"),
        UpstreamError("ended early"),
    ],
)
async def test_what_another_node_would_say_too_is_not_asked_again(error: RagrigError) -> None:
    pipeline = Pipeline(error)
    with pytest.raises(type(error)):
        await collected(pipeline)
    assert pipeline.asked == 1
