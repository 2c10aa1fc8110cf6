"""POST /v1/query: an answer with citations, whole or streamed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from coordinator.rest.answer_schema import QueryBody
from coordinator.rest.answering import collect_answer
from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import answer_json, citation_json, search_json, to_json
from coordinator.rest.filters import filter_terms
from coordinator.rest.openapi import event_schema
from coordinator.rest.replies import (
    CitationReply,
    ErrorReply,
    QueryReply,
    SearchReply,
    TokenReply,
)
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.sse import EventStream, frame
from coordinator.types import (
    CitationEvent,
    DoneEvent,
    QuerySpec,
    RetrievalEvent,
    SearchOutcome,
    SearchSpec,
    TokenEvent,
)
from ragschema.types import CallContext

_EXAMPLE_STREAM = (
    'event: retrieval\ndata: {"collection": "docs", "hits": [...], "coverage": {...}, ...}\n\n'
    'event: token\ndata: {"text": "Keys are "}\n\n'
    'event: citation\ndata: {"number": 1, "cited": true, "chunk_id": "...", ...}\n\n'
    "event: done\ndata: {the body of the answer that is not streamed}\n\n"
)
_EVENTS: dict[str, type[BaseModel]] = {
    "retrieval": SearchReply,
    "token": TokenReply,
    "citation": CitationReply,
    "done": QueryReply,
    "error": ErrorReply,
}
_STREAM_DOC: dict[int, Any] = {
    200: {
        "description": "The answer; with `stream`, events named retrieval, token, citation and"
        " done, or error, each with JSON data",
        "content": {
            "text/event-stream": {"schema": event_schema(_EVENTS), "example": _EXAMPLE_STREAM}
        },
    }
}


async def query(call: Call, body: QueryBody) -> Reply | EventStream:
    """Answer a question from one collection, with citations.

    `filters` restrict the documents by metadata. `min_coverage` refuses an answer that rests on
    less than this share of the collection.
    """
    context = call.context(body.timeout_ms)
    spec = _spec(body)
    if body.stream:
        frames = _frames(call, spec, context)
        return EventStream(frames, context, lambda error: frame("error", {"error": error}))
    with call.guard(context):
        outcome, done = await collect_answer(call, spec, context)
    return Reply(to_json(answer_json(outcome, done, call.trace_id)))


def _spec(body: QueryBody) -> QuerySpec:
    search = SearchSpec(
        collection=body.collection,
        k=body.k,
        text=body.question,
        filters=filter_terms(body.filters),
        min_coverage=body.min_coverage,
        nprobe=body.nprobe,
        recall=body.recall,
    )
    return QuerySpec(search=search, question=body.question, sampling=body.sampling())


async def _frames(call: Call, spec: QuerySpec, context: CallContext) -> AsyncGenerator[bytes, None]:
    outcome: SearchOutcome | None = None
    events = call.services.runtime.pipeline.query(spec, context)
    async with contextlib.aclosing(events) as source:
        async for event in source:
            match event:
                case RetrievalEvent():
                    outcome = event.outcome
                    yield frame("retrieval", search_json(outcome, call.trace_id))
                case TokenEvent():
                    yield frame("token", {"text": event.text})
                case CitationEvent():
                    yield frame("citation", citation_json(event.citation))
                case DoneEvent():
                    assert outcome is not None, "retrieval is the first event"
                    yield frame("done", answer_json(outcome, event, call.trace_id))


def add(router: APIRouter) -> None:
    add_operation(
        router,
        "POST",
        "/v1/query",
        query,
        QueryReply,
        errors=NODE_ERRORS,
        tag="answers",
        responses=_STREAM_DOC,
    )
