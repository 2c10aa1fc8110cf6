"""What the server answers: models that describe replies in the OpenAPI document.

Replies are encoded straight from dataclasses (``encode.py``); these models are
their published shape, and the tests hold the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator.rest.replan import ReplanReply
from coordinator.types import FilterScalar

NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Reply(BaseModel):
    """Base of every reply; a reply never has a field that is not listed."""

    model_config = ConfigDict(extra="forbid")


class ErrorObject(Reply):
    """What went wrong, where, and what to do about it."""

    type: str
    message: str
    field: str | None
    hint: str | None
    trace_id: str


class ErrorReply(Reply):
    """The one error body."""

    error: ErrorObject


class CoverageReply(Reply):
    """How much of the collection answered; ``missing`` names the shards that did not."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    missing: list[str]


Share = Annotated[float, Field(ge=0, le=1)]


class RetrievalReply(Reply):
    """How the collection was searched.

    `nprobe` is null for a collection of exact vectors; `recall_expected` is null where nothing
    was measured, `recall_reached` where no recall was asked for. A filter grows `lists_probed`
    until enough rows pass; `filter_limited` says that the rig's limit came first. `queries` were
    searched for in the question's place; with several, the other fields are the first one's.
    """

    nprobe: Count | None
    refine_k: Count | None
    recall_expected: Share | None
    recall_reached: bool | None
    lists_probed: Count
    filter_selectivity: Share | None
    filter_limited: bool
    queries: list[str]


class TimingsReply(Reply):
    """Milliseconds per stage; null: the request did not pass that stage."""

    queue_ms: NonNegative
    rewrite_ms: NonNegative | None
    embed_ms: NonNegative | None
    probe_ms: NonNegative | None
    scan_ms: NonNegative | None
    merge_ms: NonNegative | None
    rerank_ms: NonNegative | None
    prompt_ms: NonNegative | None
    first_token_ms: NonNegative | None
    total_ms: NonNegative


class UsageReply(Reply):
    """Tokens read and written."""

    prompt_tokens: Count
    completion_tokens: Count
    embed_tokens: Count


class HitReply(Reply):
    """A passage; ``start`` and ``end`` are characters of the document's text."""

    chunk_id: str
    document_id: str
    title: str
    start: Count
    end: Count
    headings: list[str]
    tokens: Count
    score: Annotated[float, Field(description="larger is nearer")]
    rerank_score: Annotated[float | None, Field(description="of the reranker, if there is one")]
    text: str
    metadata: dict[str, FilterScalar]


class CitationReply(HitReply):
    """A passage the answer was given; ``cited`` tells whether it refers to ``[number]``."""

    number: Annotated[int, Field(ge=1)]
    cited: bool


class SearchReply(Reply):
    """The nearest passages, nearest first."""

    collection: str
    generation: Count
    hits: list[HitReply]
    coverage: CoverageReply
    retrieval: RetrievalReply
    timings: TimingsReply
    usage: UsageReply
    trace_id: str


class QueryReply(Reply):
    """An answer and what it rests on."""

    answer: str
    finish_reason: str
    model: str
    collection: str
    generation: Count
    citations: list[CitationReply]
    coverage: CoverageReply
    retrieval: RetrievalReply
    timings: TimingsReply
    usage: UsageReply
    trace_id: str


class TokenReply(Reply):
    """A piece of a streamed answer."""

    text: str


class ChunkingReply(Reply):
    """How documents are cut, in tokens."""

    tokens: Count
    overlap: Count


class RecallReply(Reply):
    """What searches of a collection are to reach, and what sampled ones reached.

    `wanted` is null where the index's own settings hold; the others while nothing was sampled.
    """

    wanted: Share | None
    estimate: Share | None
    lower_bound: Share | None
    samples: Count


class CollectionReply(Reply):
    """A collection's committed state; ``error`` tells why it cannot be served."""

    name: str
    generation: Count | None
    metric: str | None
    dim: Count | None
    embedder: str | None
    index: Literal["exact", "ivfpq"] | None
    nlist: Count | None
    nprobe: Count | None
    recall: RecallReply | None
    num_shards: Count | None
    rows: Count | None
    documents: Count | None
    chunking: ChunkingReply | None
    created_at: str | None
    error: str | None


class CollectionsReply(Reply):
    """Every collection of this rig."""

    collections: list[CollectionReply]


class DroppedReply(Reply):
    """The collection that is gone."""

    name: str
    dropped: Literal[True]


class DocumentReply(Reply):
    """A document of a collection."""

    id: str
    title: str
    source: str
    content_hash: str
    chunks: Count
    bytes: Count
    ingested_at: str
    metadata: dict[str, FilterScalar]


class DocumentsReply(Reply):
    """A page of documents, by id."""

    collection: str
    total: Count
    offset: Count
    limit: Count
    documents: list[DocumentReply]


class DeletedReply(Reply):
    """The document no search returns any more, and the state without it."""

    id: str
    deleted: Literal[True]
    generation: Count


class JobReply(Reply):
    """A background ingestion; ``done`` of ``total`` counts the phase's own items."""

    id: str
    collection: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    phase: str
    done: Count
    total: Count
    summary: dict[str, Any] | None
    error: ErrorObject | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class JobsReply(Reply):
    """Waiting, running and the latest finished jobs, newest first."""

    jobs: list[JobReply]


class AliveReply(Reply):
    """The process serves."""

    status: Literal["ok"]
    version: str


class DependencyReply(Reply):
    """A node the rig needs."""

    name: str
    kind: str
    address: str
    ready: bool
    latency_ms: float | None
    error: str | None


class ReadyReply(Reply):
    """Whether every dependency answers; ``error`` says what is missing."""

    ready: bool
    dependencies: list[DependencyReply]
    error: ErrorObject | None


class NodeReply(DependencyReply):
    """A node and what it reports about itself."""

    instance_id: str | None
    detail: dict[str, Any]


class ShardGroupReply(Reply):
    """Retrieval nodes that hold the same shards, and how many of them are ready."""

    group: Count
    nodes: list[str]
    ready: Count


class StatusReply(Reply):
    """Nodes, shards, collections and jobs of this rig.

    `leaving` are nodes that get no new work and may still end what they were given. `replan` is
    null where nobody watches whether the plan still fits.
    """

    name: str
    version: str
    uptime_s: NonNegative
    ready: bool
    problems: list[str]
    nodes: list[NodeReply]
    leaving: list[DependencyReply]
    shard_groups: list[ShardGroupReply]
    collections: list[CollectionReply]
    jobs: list[JobReply]
    replan: ReplanReply | None
