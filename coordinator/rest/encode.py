"""From the coordinator's dataclasses to what orjson writes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from coordinator.types import (
    Citation,
    Coverage,
    DoneEvent,
    Hit,
    RetrievalReport,
    SearchOutcome,
    Timings,
    Usage,
)
from ragschema.types import F32, TokenChance, TokenLogprob

JsonObject = dict[str, Any]

#: JSON has no infinity. OpenAI writes this for what is next to impossible.
_LEAST_LOGPROB = -9999.0


def to_json(value: object) -> bytes:
    """orjson with numpy arrays and mappings that are not dicts."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def hit_json(hit: Hit) -> JsonObject:
    chunk = hit.chunk
    return {
        "chunk_id": chunk.chunk_id,
        "document_id": chunk.document_id,
        "title": chunk.title,
        "start": chunk.start,
        "end": chunk.end,
        "headings": chunk.headings,
        "tokens": chunk.tokens,
        "score": hit.score,
        "rerank_score": hit.rerank_score,
        "text": chunk.text,
        "metadata": chunk.metadata,
    }


def citation_json(citation: Citation) -> JsonObject:
    found = hit_json(citation.hit)
    found["number"] = citation.number
    found["cited"] = citation.cited
    return found


def coverage_json(coverage: Coverage) -> JsonObject:
    return {"fraction": coverage.fraction, "missing": coverage.missing}


def retrieval_json(report: RetrievalReport) -> JsonObject:
    return {
        "nprobe": report.nprobe,
        "refine_k": report.refine_k,
        "recall_expected": report.recall_expected,
        "recall_reached": report.recall_reached,
        "lists_probed": report.lists_probed,
        "filter_selectivity": report.filter_selectivity,
        "filter_limited": report.filter_limited,
        "queries": report.queries,
    }


def timings_json(timings: Timings) -> JsonObject:
    return {
        "queue_ms": timings.queue_ms,
        "rewrite_ms": timings.rewrite_ms,
        "embed_ms": timings.embed_ms,
        "probe_ms": timings.probe_ms,
        "scan_ms": timings.scan_ms,
        "merge_ms": timings.merge_ms,
        "rerank_ms": timings.rerank_ms,
        "prompt_ms": timings.prompt_ms,
        "first_token_ms": timings.first_token_ms,
        "total_ms": timings.total_ms,
    }


def usage_json(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "embed_tokens": usage.embed_tokens,
    }


def search_json(outcome: SearchOutcome, trace_id: str) -> JsonObject:
    """The shape of ``SearchReply``."""
    return {
        "collection": outcome.collection,
        "generation": outcome.generation,
        "hits": [hit_json(hit) for hit in outcome.hits],
        "coverage": coverage_json(outcome.coverage),
        "retrieval": retrieval_json(outcome.retrieval),
        "timings": timings_json(outcome.timings),
        "usage": usage_json(outcome.usage),
        "trace_id": trace_id,
    }


def answer_json(outcome: SearchOutcome, done: DoneEvent, trace_id: str) -> JsonObject:
    """The shape of ``QueryReply``."""
    return {
        "answer": done.answer,
        "finish_reason": done.finish_reason,
        "model": done.model,
        "collection": outcome.collection,
        "generation": outcome.generation,
        "citations": [citation_json(citation) for citation in done.citations],
        "coverage": coverage_json(done.coverage),
        "retrieval": retrieval_json(done.retrieval),
        "timings": timings_json(done.timings),
        "usage": usage_json(done.usage),
        "trace_id": trace_id,
    }


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> JsonObject:
    """The shape of ``LogprobsReply``."""
    content = [
        {**_chance_json(one.chosen), "top_logprobs": [_chance_json(other) for other in one.top]}
        for one in logprobs
    ]
    return {"content": content, "refusal": None}


def _chance_json(chance: TokenChance) -> JsonObject:
    return {
        "token": chance.text,
        "logprob": max(chance.logprob, _LEAST_LOGPROB),
        "bytes": list(chance.data),
    }


def vector_base64(vector: F32) -> str:
    """Base64 of little-endian float32, as the OpenAI client reads it."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")
