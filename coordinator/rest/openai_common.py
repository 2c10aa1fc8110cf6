"""What OpenAI's two ways to ask for an answer have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from coordinator.rest.answer_schema import OpenAiAnswering, StreamOptions
from coordinator.rest.call import Call
from coordinator.rest.encode import (
    JsonObject,
    citation_json,
    coverage_json,
    retrieval_json,
    timings_json,
)
from coordinator.rest.filters import filter_terms
from coordinator.rest.names import is_collection_name
from coordinator.rest.operations.embeddings import generator_of
from coordinator.rest.operations.models import MODEL_PREFIX
from coordinator.types import DoneEvent, SearchSpec, Usage
from ragschema.errors import InvalidInput, NotFound


def stream_doc(kind: str) -> dict[int, Any]:
    """For the OpenAPI document: what a stream of such chunks looks like."""
    return {
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
                    "example": f'data: {{"object": "{kind}", ...}}\n\ndata: [DONE]\n\n',
                }
            },
        }
    }


def search_of(call: Call, body: OpenAiAnswering, question: str) -> SearchSpec:
    """The search for a question, in the collection that the body names.

    Raises:
        NotFound, InvalidInput: no collection is named, or two.
    """
    return SearchSpec(
        collection=_collection(call, body),
        k=body.k,
        text=question,
        filters=filter_terms(body.filters),
        min_coverage=body.min_coverage,
        nprobe=body.nprobe,
        recall=body.recall,
    )


def _collection(call: Call, body: OpenAiAnswering) -> str:
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


def head_of(call: Call, body: OpenAiAnswering, prefix: str, kind: str) -> JsonObject:
    """What every reply and every chunk begins with."""
    return {
        "id": f"{prefix}-{call.trace_id}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }


def wants_usage(options: StreamOptions | None) -> bool:
    """Whether a stream ends with a chunk of its own for tokens."""
    return options is not None and options.include_usage


def usage_of(usage: Usage) -> JsonObject:
    """Tokens of the generator."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def extras_of(done: DoneEvent) -> JsonObject:
    """What ragrig adds; a passage is cited when any of the answers cites it."""
    cited = {c.number for choice in done.choices for c in choice.citations if c.cited}
    passages = [replace(c, cited=c.number in cited) for c in done.citations]
    return {
        "citations": [citation_json(citation) for citation in passages],
        "coverage": coverage_json(done.coverage),
        "retrieval": retrieval_json(done.retrieval),
        "timings": timings_json(done.timings),
    }


def endings(head: JsonObject, done: DoneEvent) -> Iterator[tuple[int, str, JsonObject]]:
    """Of each answer of a stream its place, why it ended, and the head of the chunk that says
    so; the last one's has the extras, too."""
    last = len(done.choices) - 1
    for index, choice in enumerate(done.choices):
        whole = {**head, **extras_of(done)} if index == last else head
        yield index, choice.finish_reason, whole
