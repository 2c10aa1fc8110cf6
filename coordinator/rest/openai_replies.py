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


class TopLogprobReply(Reply):
    """A token that might have stood there; `bytes` are those of its UTF-8."""

    token: str
    logprob: float
    bytes: list[Count]


class TokenLogprobReply(TopLogprobReply):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprobReply]


class LogprobsReply(Reply):
    """Natural logarithms of the model's probabilities, before penalties and temperature."""

    content: list[TokenLogprobReply]
    refusal: None


class ChatChoice(Reply):
    """One of the answers; `logprobs` is null unless asked for."""

    index: Count
    message: ChatMessageReply
    finish_reason: str
    logprobs: LogprobsReply | None


class ChatUsage(Reply):
    """Tokens of the generator."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class ChatReply(Reply):
    """The OpenAI chat completion, with citations, coverage, retrieval and timings added.

    With several choices a citation is `cited` when any of them cites it.
    """

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


class CompletionLogprobsReply(Reply):
    """Of each token, by place: its text, log probability, alternatives, and first character."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[Count]


class CompletionChoice(Reply):
    """One of the answers; `logprobs` is null unless asked for."""

    index: Count
    text: str
    finish_reason: str
    logprobs: CompletionLogprobsReply | None


class CompletionReply(Reply):
    """The OpenAI text completion, with citations, coverage, retrieval and timings added.

    With several choices a citation is `cited` when any of them cites it.
    """

    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    choices: list[CompletionChoice]
    usage: ChatUsage
    citations: list[CitationReply]
    coverage: CoverageReply
    retrieval: RetrievalReply
    timings: TimingsReply
