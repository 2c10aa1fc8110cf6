"""Published shapes of the replies that OpenAI clients read."""

from __future__ import annotations

from typing import Literal

from coordinator.rest.replies import (
    CitationReply,
    Count,
    CoverageReply,
    Reply,
    RetrievalReply,
    TimingsReply,
)


class EmbeddingItem(Reply):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingsUsage(Reply):
    """Tokens read."""

    prompt_tokens: Count
    total_tokens: Count


class EmbeddingsReply(Reply):
    """The OpenAI list of vectors, in the order of the input."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingsUsage


class ModelItem(Reply):
    """A collection to chat with, or a model of an LLM node."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str


class ModelsReply(Reply):
    """The OpenAI list of models."""

    object: Literal["list"]
    data: list[ModelItem]


class ChatMessageReply(Reply):
    """The answer."""

    role: Literal["assistant"]
    content: str


class ChatChoice(Reply):
    """The only choice."""

    index: Literal[0]
    message: ChatMessageReply
    finish_reason: str
    logprobs: None


class ChatUsage(Reply):
    """Tokens of the generator."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class ChatReply(Reply):
    """The OpenAI chat completion, with citations, coverage, retrieval and timings added."""

    id: str
    object: Literal["chat.completion"]
    created: Count
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    citations: list[CitationReply]
    coverage: CoverageReply
    retrieval: RetrievalReply
    timings: TimingsReply
