"""Shared vocabulary: what the parts hand to each other inside a process.

Arrays are numpy, C-contiguous; shapes and dtypes stand beside each field.
"Distance" always means: smaller is nearer (squared L2, or minus the inner
product); "score" is what a user sees, and larger is better.
"""

from __future__ import annotations

import enum
import secrets
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import DeadlineExceeded

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class Metric(enum.StrEnum):
    """How two vectors are compared."""

    L2 = "l2"
    IP = "ip"
    COSINE = "cosine"

    def score(self, distance: float) -> float:
        """User-facing score of a distance: larger is better."""
        return -float(distance)


class Role(enum.StrEnum):
    """What an LLM node does."""

    EMBED = "embed"
    GENERATE = "generate"
    PREFILL = "prefill"
    DECODE = "decode"
    RERANK = "rerank"
    REWRITE = "rewrite"
    INDEX_SCAN = "index_scan"


class EmbedPurpose(enum.StrEnum):
    """Some models read queries and passages differently."""

    QUERY = "query"
    PASSAGE = "passage"


@dataclass(frozen=True)
class CallContext:
    """A deadline and a trace id that travel with every call.

    Attributes:
        trace_id: 16 hex characters, unique per request.
        deadline_s: on ``time.monotonic()``'s clock.
    """

    trace_id: str
    deadline_s: float

    @staticmethod
    def start(timeout_s: float, trace_id: str | None = None) -> CallContext:
        """A fresh context that ends ``timeout_s`` from now."""
        return CallContext(trace_id or secrets.token_hex(8), time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Seconds left; raises DeadlineExceeded when none are."""
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                "the deadline passed before the work was done",
                hint="allow more time with timeout_ms, or ask for less",
                trace_id=self.trace_id,
            )
        return left


@dataclass(frozen=True)
class SnapshotId:
    """One committed state of a collection."""

    collection: str
    generation: int


@dataclass(frozen=True)
class SearchBatch:
    """Queries for one snapshot, as a retrieval node sees them.

    Attributes:
        snapshot: which committed state to search.
        shards: loaded shards to scan.
        queries: float32 [n, dim], unit length where the metric is cosine.
        list_ids: int32 [n, nprobe], padded with -1; None for exact collections.
        k: rows wanted per query.
        refine_k: candidates to rescore with stored vectors, None for no refinement.
        filters: bitmaps over row ids, each uint8 [ceil(next_row_id / 8)], bit
            ``i & 7`` of byte ``i >> 3`` set when row i may be returned.
        filter_of: int32 [n], index into filters or -1; None when nothing is filtered.
        exact: compare with every stored vector instead of scanning codes; list_ids
            and refine_k are None then.
    """

    snapshot: SnapshotId
    shards: tuple[int, ...]
    queries: F32
    list_ids: I32 | None
    k: int
    refine_k: int | None = None
    filters: tuple[U8, ...] = ()
    filter_of: I32 | None = None
    exact: bool = False


@dataclass(frozen=True)
class SearchStats:
    """Work one node did for one batch.

    Attributes:
        survivors: codes that passed a backend's filter and were computed in full.
        batch_queries: queries of all callers that shared the kernel call.
    """

    codes_scanned: int = 0
    bytes_scanned: int = 0
    survivors: int = 0
    batch_queries: int = 0
    queue_us: int = 0
    scan_us: int = 0
    refine_us: int = 0


@dataclass(frozen=True)
class SearchResult:
    """A node's answer.

    Attributes:
        distances: float32 [n, k] ascending; entries past counts are zero.
        row_ids: int64 [n, k].
        counts: int32 [n], valid entries.
        rows_covered: live rows in the shards that were scanned.
    """

    distances: F32
    row_ids: I64
    counts: I32
    rows_covered: int
    stats: SearchStats = field(default_factory=SearchStats)


@dataclass(frozen=True)
class Passage:
    """A numbered text offered to the generator; answers cite ``[number]``."""

    number: int
    title: str
    text: str


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a chat; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; ``ragschema.sampling`` knows the ranges.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of the probability that the likeliest tokens kept must reach.
        seed: None draws one; the same one gives the same tokens.
        stop: texts that end the answer and are no part of it.
        min_tokens: before so many, nothing but ``max_tokens`` ends the answer.
        top_k: likeliest tokens kept; 0: all.
        min_p: least probability kept, as a share of the greatest.
        repetition_penalty: above 1, whatever was read or written gets less likely.
        presence_penalty: what a logit loses once its token was written.
        frequency_penalty: what it loses each time.
        stop_ids: tokens that end the answer, as the model's own end does.
        ignore_eos: the model's own end is a token like others.
        logprobs: alternatives told for every token with their log probabilities;
            None: no log probabilities at all.
        n: answers to the same prompt.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_tokens: int = 0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1


@dataclass(frozen=True)
class GenerateSpec:
    """Everything a generator may read; each reads the form it understands."""

    messages: tuple[ChatMessage, ...]
    question: str
    passages: tuple[Passage, ...]
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class TokenChance:
    """A token and how likely it was.

    Attributes:
        text: bytes that are no whole character become U+FFFD.
        logprob: natural logarithm of its probability before penalties and temperature.
    """

    text: str
    data: bytes
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was chosen, and the likeliest ones in its place, best first."""

    chosen: TokenChance
    top: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class TokenPiece:
    """Streamed text and the number of tokens it stands for.

    Attributes:
        index: which of the request's ``n`` answers.
        logprobs: of the answer's tokens since its last piece, when asked for.
    """

    text: str
    tokens: int = 1
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class GenerateEnd:
    """Last event of an answer; ``index`` tells which of the request's ``n``."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    queue_us: int = 0
    first_token_us: int = 0
    total_us: int = 0
    index: int = 0


GenerateEvent = TokenPiece | GenerateEnd


@dataclass(frozen=True)
class ModelInfo:
    """A model an LLM node has loaded.

    Attributes:
        dim: vector dimension, None for generators.
        max_input_tokens: longest input, None where there is no limit.
    """

    role: Role
    name: str
    fingerprint: str
    dim: int | None
    max_input_tokens: int | None
