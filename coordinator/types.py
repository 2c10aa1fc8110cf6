"""What flows through the coordinator: REST body -> these -> stages -> events -> SSE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ragschema.types import F32, ChatMessage, Sampling, TokenLogprob

FilterScalar = str | int | float | bool
FilterOp = Literal["in", "ne", "gt", "gte", "lt", "lte"]


@dataclass(frozen=True)
class FilterTerm:
    """One condition on a document's metadata; terms of a request are and-ed.

    Attributes:
        field: a metadata key, or ``document`` for the document's id.
        values: alternatives for ``in``; one value for every other operator.
    """

    field: str
    op: FilterOp
    values: tuple[FilterScalar, ...]


@dataclass(frozen=True)
class SearchSpec:
    """A validated search; exactly one of text and vector is set.

    Attributes:
        vector: float32 [dim], finite; unit length is not required.
        min_coverage: share of the collection's rows that must have been
            searched, else InsufficientCoverage.
        nprobe: lists to scan, None for the collection's own setting.
        recall: share of the true nearest to reach, instead of nprobe; in (0, 1].
    """

    collection: str
    k: int
    text: str | None = None
    vector: F32 | None = None
    filters: tuple[FilterTerm, ...] = ()
    min_coverage: float = 0.0
    nprobe: int | None = None
    recall: float | None = None


@dataclass(frozen=True)
class QuerySpec:
    """A validated question; ``history`` holds earlier turns of a chat."""

    search: SearchSpec
    question: str
    sampling: Sampling = field(default_factory=Sampling)
    history: tuple[ChatMessage, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A stored piece of a document.

    Attributes:
        chunk_id: stable while the document's text around it is unchanged.
        start: first character in the document's extracted text.
        end: one past the last.
        headings: path of headings above it, outermost first.
    """

    row_id: int
    chunk_id: str
    document_id: str
    title: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...]
    tokens: int
    metadata: Mapping[str, FilterScalar]


@dataclass(frozen=True)
class Hit:
    """A chunk and how near it is; larger scores are nearer.

    Attributes:
        rerank_score: of the cross-encoder that ordered the hits, on its own scale,
            larger answers better; None where none did.
    """

    chunk: Chunk
    score: float
    rerank_score: float | None = None


@dataclass(frozen=True)
class Coverage:
    """How much of the collection an answer rests on.

    Attributes:
        fraction: live rows searched over live rows, 1.0 for an empty collection.
        missing: names such as ``shard-1`` of what did not answer.
    """

    fraction: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Milliseconds per stage; None: the request did not pass that stage.

    ``first_token_ms`` and ``total_ms`` count from the request's arrival.
    """

    queue_ms: float = 0.0
    rewrite_ms: float | None = None
    embed_ms: float | None = None
    probe_ms: float | None = None
    scan_ms: float | None = None
    merge_ms: float | None = None
    rerank_ms: float | None = None
    prompt_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0


@dataclass(frozen=True)
class Usage:
    """Tokens read and written by the generator and the embedder."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    embed_tokens: int = 0


@dataclass(frozen=True)
class RetrievalReport:
    """How a search looked, and what that is worth.

    Attributes:
        nprobe: lists to scan before the filter grew them; None: the collection
            keeps exact vectors.
        refine_k: candidates rescored with stored vectors; None: none.
        recall_expected: as measured of the index without filters; None:
            nothing was measured that tells.
        recall_reached: whether the wanted recall is expected; None: none was
            wanted.
        lists_probed: lists that were scanned.
        filter_selectivity: rows that pass the filter over live rows; None: no
            filter.
        filter_limited: the rig's limit ended the search before the filter was
            given all the lists it needs.
        queries: what was searched for in the question's place; none: the question.
    """

    nprobe: int | None = None
    refine_k: int | None = None
    recall_expected: float | None = None
    recall_reached: bool | None = None
    lists_probed: int = 0
    filter_selectivity: float | None = None
    filter_limited: bool = False
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchOutcome:
    """The answer to a search."""

    collection: str
    generation: int
    hits: tuple[Hit, ...]
    coverage: Coverage
    timings: Timings
    usage: Usage
    retrieval: RetrievalReport = field(default_factory=RetrievalReport)


@dataclass(frozen=True)
class Citation:
    """A passage of the prompt.

    Attributes:
        number: how the answer refers to it, ``[number]``.
        cited: whether the answer did. When an answer cites nothing, every
            passage it was given is listed with ``cited`` false.
    """

    number: int
    hit: Hit
    cited: bool


@dataclass(frozen=True)
class RetrievalEvent:
    """First event of a query: what was found."""

    outcome: SearchOutcome


@dataclass(frozen=True)
class TokenEvent:
    """A piece of an answer's text.

    Attributes:
        index: which of the answers that were asked for.
        logprobs: of its tokens since the last piece, when asked for.
    """

    text: str
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class CitationEvent:
    """Sent when an answer first refers to a passage."""

    citation: Citation
    index: int = 0


@dataclass(frozen=True)
class Choice:
    """One of the answers to a question, whole."""

    answer: str
    finish_reason: str
    citations: tuple[Citation, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class DoneEvent:
    """Last event of a query that went well; holds the whole answer.

    Attributes:
        logprobs: of the answer's tokens, when asked for.
        others: further answers, when more than one was asked for.
    """

    answer: str
    finish_reason: str
    model: str
    citations: tuple[Citation, ...]
    coverage: Coverage
    timings: Timings
    usage: Usage
    retrieval: RetrievalReport = field(default_factory=RetrievalReport)
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every answer, by its index."""
        first = Choice(self.answer, self.finish_reason, self.citations, self.logprobs)
        return (first, *self.others)


QueryEvent = RetrievalEvent | TokenEvent | CitationEvent | DoneEvent
