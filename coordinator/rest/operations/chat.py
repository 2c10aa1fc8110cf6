"""POST /v1/chat/completions, as OpenAI clients know it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter

from coordinator.rest.answering import collect_answer
from coordinator.rest.call import Call, Reply
from coordinator.rest.chat_schema import ChatBody
from coordinator.rest.encode import JsonObject, logprobs_json, to_json
from coordinator.rest.openai_common import (
    endings,
    extras_of,
    head_of,
    search_of,
    stream_doc,
    usage_of,
    wants_usage,
)
from coordinator.rest.openai_replies import ChatReply
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.sse import EventStream, data_frame
from coordinator.types import DoneEvent, QuerySpec, TokenEvent
from ragschema.types import CallContext, TokenLogprob


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
    head = head_of(call, body, "chatcmpl", "chat.completion")
    return Reply(
        to_json({**head, "choices": choices, "usage": usage_of(done.usage), **extras_of(done)})
    )


def _spec(call: Call, body: ChatBody) -> QuerySpec:
    return QuerySpec(
        search_of(call, body, body.question()), body.question(), body.sampling(), body.history()
    )


def _logprobs(spec: QuerySpec, logprobs: tuple[TokenLogprob, ...]) -> JsonObject | None:
    return None if spec.sampling.logprobs is None else logprobs_json(logprobs)


async def _frames(
    call: Call, body: ChatBody, spec: QuerySpec, context: CallContext
) -> AsyncGenerator[bytes, None]:
    head = head_of(call, body, "chatcmpl", "chat.completion.chunk")
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
                for index, finish, whole in endings(head, event):
                    yield _chunk(whole, index, {}, finish)
                if wants_usage(body.stream_options):
                    yield data_frame({**head, "choices": [], "usage": usage_of(event.usage)})
    yield b"data: [DONE]\n\n"


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
        responses=stream_doc("chat.completion.chunk"),
    )
