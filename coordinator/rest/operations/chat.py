"""POST /v1/chat/completions, as OpenAI clients know it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter

from coordinator.rest.answering import collect_answer
from coordinator.rest.call import Call, Reply
from coordinator.rest.chat_schema import ChatBody
from coordinator.rest.encode import (
    JsonObject,
    citation_json,
    coverage_json,
    logprobs_json,
    retrieval_json,
    timings_json,
    to_json,
)
from coordinator.rest.filters import filter_terms
from coordinator.rest.names import is_collection_name
from coordinator.rest.openai_replies import ChatReply
from coordinator.rest.operations.embeddings import generator_of
from coordinator.rest.operations.models import MODEL_PREFIX
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.sse import EventStream, data_frame
from coordinator.types import DoneEvent, QuerySpec, SearchSpec, TokenEvent, Usage
from ragschema.errors import InvalidInput, NotFound
from ragschema.types import CallContext, TokenLogprob

_STREAM_DOC: dict[int, Any] = {
    200: {
        "description": "The completion; with `stream`, `data:` chunks and a last `[DONE]`. The"
        " chunk with `finish_reason` carries citations, coverage, retrieval and timings.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string"}},
                },
                "example": 'data: {"object": "chat.completion.chunk", ...}\n\ndata: [DONE]\n\n',
            }
        },
    }
}


async def chat_completions(call: Call, body: ChatBody) -> Reply | EventStream:
    """Answer the last user message from a collection, with citations in an extra field.

    The collection is named by `model` (`ragrig/COLLECTION`) or by `collection`. Options that
    would change the answer and are not supported here are refused by name.
    """
    context = call.context(body.timeout_ms)
    spec = _spec(call, body)
    if body.stream:
        frames = _frames(call, body, spec, context)
        return EventStream(frames, context, lambda error: data_frame({"error": error}))
    with call.guard(context):
        _, done = await collect_answer(call, spec, context)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.answer},
            "finish_reason": choice.finish_reason,
            "logprobs": _logprobs(spec, choice.logprobs),
        }
        for index, choice in enumerate(done.choices)
    ]
    head = _head(call, body, "chat.completion")
    return Reply(
        to_json({**head, "choices": choices, "usage": _usage(done.usage), **_extras(done)})
    )


def _spec(call: Call, body: ChatBody) -> QuerySpec:
    search = SearchSpec(
        collection=_collection(call, body),
        k=body.k,
        text=body.question(),
        filters=filter_terms(body.filters),
        min_coverage=body.min_coverage,
        nprobe=body.nprobe,
        recall=body.recall,
    )
    return QuerySpec(search, body.question(), body.sampling(), body.history())


def _collection(call: Call, body: ChatBody) -> str:
    if not body.model.startswith(MODEL_PREFIX):
        generator = generator_of(call.services.runtime).name
        if body.model != generator:
            raise NotFound(
                f"there is no model {body.model!r}",
                field="model",
                hint=f"use {MODEL_PREFIX}COLLECTION, or {generator!r} with collection set",
            )
        if body.collection is None:
            raise InvalidInput(
                "no collection is named",
                field="collection",
                hint=f"set collection, or use the model {MODEL_PREFIX}COLLECTION",
            )
        return body.collection
    named = body.model.removeprefix(MODEL_PREFIX)
    if not is_collection_name(named):
        raise NotFound(f"there is no model {body.model!r}", field="model", hint="GET /v1/models")
    if body.collection is not None and body.collection != named:
        raise InvalidInput(
            f"{body.collection!r} is not the collection of the model {body.model!r}",
            field="collection",
            hint="name the collection once",
        )
    return named


def _head(call: Call, body: ChatBody, kind: str) -> JsonObject:
    return {
        "id": f"chatcmpl-{call.trace_id}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _logprobs(spec: QuerySpec, logprobs: tuple[TokenLogprob, ...]) -> JsonObject | None:
    return None if spec.sampling.logprobs is None else logprobs_json(logprobs)


def _extras(done: DoneEvent) -> JsonObject:
    cited = {c.number for choice in done.choices for c in choice.citations if c.cited}
    passages = [replace(c, cited=c.number in cited) for c in done.citations]
    return {
        "citations": [citation_json(citation) for citation in passages],
        "coverage": coverage_json(done.coverage),
        "retrieval": retrieval_json(done.retrieval),
        "timings": timings_json(done.timings),
    }


async def _frames(
    call: Call, body: ChatBody, spec: QuerySpec, context: CallContext
) -> AsyncGenerator[bytes, None]:
    head = _head(call, body, "chat.completion.chunk")
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    events = call.services.runtime.pipeline.query(spec, context)
    opened = False
    async with contextlib.aclosing(events) as source:
        async for event in source:
            if not opened:
                opened = True
                for index in range(spec.sampling.n):
                    yield _chunk(head, index, {"role": "assistant", "content": ""})
            if isinstance(event, TokenEvent):
                logprobs = _logprobs(spec, event.logprobs)
                yield _chunk(head, event.index, {"content": event.text}, logprobs=logprobs)
            elif isinstance(event, DoneEvent):
                for frame in _last_chunks(head, event):
                    yield frame
                if with_usage:
                    yield data_frame({**head, "choices": [], "usage": _usage(event.usage)})
    yield b"data: [DONE]\n\n"


def _last_chunks(head: JsonObject, done: DoneEvent) -> Iterator[bytes]:
    """Why each answer ended; the last one has the extras, too."""
    choices = done.choices
    for index, choice in enumerate(choices):
        extras = _extras(done) if index == len(choices) - 1 else {}
        yield _chunk({**head, **extras}, index, {}, choice.finish_reason)


def _chunk(
    head: JsonObject,
    index: int,
    delta: JsonObject,
    finish: str | None = None,
    logprobs: JsonObject | None = None,
) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return data_frame({**head, "choices": [choice]})


def add(router: APIRouter) -> None:
    add_operation(
        router,
        "POST",
        "/v1/chat/completions",
        chat_completions,
        ChatReply,
        errors=NODE_ERRORS,
        tag="openai",
        responses=_STREAM_DOC,
    )
