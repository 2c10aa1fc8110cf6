"""POST /v1/completions: OpenAI's older form, in which the prompt is the question."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter

from coordinator.rest.answering import collect_answer
from coordinator.rest.call import Call, Reply
from coordinator.rest.completion_schema import CompletionBody
from coordinator.rest.encode import JsonObject, to_json
from coordinator.rest.openai_common import (
    endings,
    extras_of,
    head_of,
    search_of,
    stream_doc,
    usage_of,
    wants_usage,
)
from coordinator.rest.openai_replies import CompletionReply
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.sse import EventStream, data_frame
from coordinator.types import DoneEvent, QuerySpec, TokenEvent
from ragschema.types import CallContext, TokenLogprob

_KIND = "text_completion"


class _Logprobs:
    """Writes log probabilities of one growing answer in OpenAI's older form."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._chars = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def told(self, logprobs: Sequence[TokenLogprob]) -> JsonObject | None:
        """The shape of ``CompletionLogprobsReply``; offsets go on from the last call's."""
        if not self._wanted:
            return None
        offsets = []
        for one in logprobs:
            offsets.append(self._at)
            self._at += len(self._chars.decode(one.chosen.data))
        return {
            "tokens": [one.chosen.text for one in logprobs],
            "token_logprobs": [one.chosen.logprob for one in logprobs],
            "top_logprobs": [{o.text: o.logprob for o in reversed(one.top)} for one in logprobs],
            "text_offset": offsets,
        }


async def completions(call: Call, body: CompletionBody) -> Reply | EventStream:
    """Answer the prompt from a collection, with citations in an extra field.

    The collection is named by `model` (`ragrig/COLLECTION`) or by `collection`.
    """
    context = call.context(body.timeout_ms)
    spec = QuerySpec(search_of(call, body, body.prompt), body.prompt, body.sampling())
    if body.stream:
        frames = _frames(call, body, spec, context)
        return EventStream(frames, context, lambda error: data_frame({"error": error}))
    with call.guard(context):
        _, done = await collect_answer(call, spec, context)
    choices = [
        _choice(index, one.answer, one.finish_reason, _logprobs(spec).told(one.logprobs))
        for index, one in enumerate(done.choices)
    ]
    reply = {**head_of(call, body, "cmpl", _KIND), "choices": choices}
    return Reply(to_json({**reply, "usage": usage_of(done.usage), **extras_of(done)}))


def _logprobs(spec: QuerySpec) -> _Logprobs:
    return _Logprobs(spec.sampling.logprobs is not None)


def _choice(
    index: int, text: str, finish: str | None = None, logprobs: JsonObject | None = None
) -> JsonObject:
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}


async def _frames(
    call: Call, body: CompletionBody, spec: QuerySpec, context: CallContext
) -> AsyncGenerator[bytes, None]:
    head = head_of(call, body, "cmpl", _KIND)
    logprobs = [_logprobs(spec) for _ in range(spec.sampling.n)]
    events = call.services.runtime.pipeline.query(spec, context)
    async with contextlib.aclosing(events) as source:
        async for event in source:
            if isinstance(event, TokenEvent):
                told = logprobs[event.index].told(event.logprobs)
                choice = _choice(event.index, event.text, logprobs=told)
                yield data_frame({**head, "choices": [choice]})
            elif isinstance(event, DoneEvent):
                for index, finish, whole in endings(head, event):
                    yield data_frame({**whole, "choices": [_choice(index, "", finish)]})
                if wants_usage(body.stream_options):
                    yield data_frame({**head, "choices": [], "usage": usage_of(event.usage)})
    yield b"data: [DONE]\n\n"


def add(router: APIRouter) -> None:
    add_operation(
        router,
        "POST",
        "/v1/completions",
        completions,
        CompletionReply,
        errors=NODE_ERRORS,
        tag="openai",
        responses=stream_doc(_KIND),
    )
