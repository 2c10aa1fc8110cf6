"""Requests, the sequences they become, and the events they give."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ragschema.errors import InvalidInput
from ragschema.types import F32, I32, Sampling

if TYPE_CHECKING:
    from llm_node.engine.kv import KvSnapshot
    from llm_node.engine.sampler import SamplerRow


class SequenceState(enum.Enum):
    """Where a sequence stands; only RUNNING ones are in the batch."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"


class Finish(enum.StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


class PauseReason(enum.StrEnum):
    """Why a sequence waits for ``resume`` or ``resume_mixed``."""

    INTERVAL = "interval"
    TRIGGER = "trigger"
    NEIGHBOURS = "neighbours"


@dataclass(frozen=True)
class PausePolicy:
    """When a sequence stops by itself and waits for what was retrieved.

    Attributes:
        every_tokens: pause behind every so many generated tokens.
        trigger_ids: pause behind each of these tokens.
        every_token_hidden: pause in front of every token with the last hidden
            state (kNN-LM); the token is chosen when the sequence is resumed.
        hold_kv: a paused sequence keeps its blocks, whoever else needs them;
            without it they may be taken and computed again later.
    """

    every_tokens: int | None = None
    trigger_ids: frozenset[int] = frozenset()
    every_token_hidden: bool = False
    hold_kv: bool = False

    def __post_init__(self) -> None:
        if self.every_tokens is not None and self.every_tokens < 1:
            raise InvalidInput(
                f"{self.every_tokens} is not positive", field="every_tokens", hint="use 1 or more"
            )


@dataclass(frozen=True)
class EngineRequest:
    """A prompt and how it goes on.

    Attributes:
        request_id: unique among the requests that have not ended.
        prompt_ids: at least one token.
        sampling: ``sampling.n`` sequences share the prompt's blocks; text stops
            are the caller's affair, who cancels.
        eos: ids that end a sequence unless ``sampling.ignore_eos``.
        priority: smaller first.
        deadline_s: on ``time.monotonic()``'s clock; the request ends then.
        capture_hidden: ``Paused`` events carry the last hidden state.
        pause: None for a sequence that never pauses.
        seed: resolved; None draws one when the request is added.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    eos: frozenset[int] = frozenset()
    priority: int = 0
    deadline_s: float | None = None
    capture_hidden: bool = False
    pause: PausePolicy | None = None
    seed: int | None = None


@dataclass(frozen=True)
class KnnMix:
    """Neighbours that a token is drawn with.

    Attributes:
        tokens: int32 [k], the token behind each neighbour.
        distances: float32 [k], smaller is nearer.
        lam: weight of the neighbours, 0 to 1.
        temperature: distances are divided by it.
    """

    tokens: I32
    distances: F32
    lam: float
    temperature: float


@dataclass(eq=False)
class Sequence:
    """The mutable state of one of a request's ``n`` sequences.

    Attributes:
        token_ids: prompt, generated tokens and injected context, in order.
        output_ids: generated tokens alone.
        computed: tokens whose KV lies in the blocks, from the first on.
        blocks: block table; ``len(blocks) * block_tokens >= computed``.
        hashes: chained hashes of the full blocks of ``token_ids`` made so far.
        cached: tokens whose KV was found rather than computed.
        since_pause: outputs that no ``Paused`` event has told yet.
        logits: of the next token, held by a sequence that pauses for neighbours.
        mix: neighbours that came for it.
        leader: computes the prompt for this one of n, until it has a place.
        snapshot: KV to copy into the blocks at the next admission.
        row: what the sampler knows, from the first token it chose.
    """

    request: EngineRequest
    index: int
    arrival: int
    seed: int
    limit: int
    token_ids: list[int]
    output_ids: list[int] = field(default_factory=list)
    state: SequenceState = SequenceState.WAITING
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    cached: int = 0
    since_pause: int = 0
    preempted: int = 0
    leader: Sequence | None = None
    logits: Any = None
    mix: KnnMix | None = None
    snapshot: KvSnapshot | None = None
    row: SamplerRow | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Smaller is served first and preempted last."""
        return (self.request.priority, self.arrival)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be chosen."""
        return len(self.token_ids) - self.computed

    @property
    def holds_kv(self) -> bool:
        """Whether a pause protects the blocks."""
        pause = self.request.pause
        return self.state is SequenceState.PAUSED and pause is not None and pause.hold_kv


@dataclass(frozen=True)
class TokenOut:
    """One generated token.

    Attributes:
        index: which of the request's ``n`` sequences.
        logprob: natural logarithm, None when not asked for.
        top: most likely tokens and their logprobs, best first.
    """

    request_id: str
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    index: int = 0


@dataclass(frozen=True)
class Paused:
    """The sequence waits for ``resume`` or ``resume_mixed``.

    Attributes:
        new_ids: tokens generated since the last pause.
        index: which of the request's ``n`` sequences; each pauses by itself.
        hidden: float32 [hidden], the state behind the last computed token as the
            LM head reads it; None unless asked for.
    """

    request_id: str
    reason: PauseReason
    new_ids: tuple[int, ...]
    hidden: F32 | None = None
    index: int = 0


@dataclass(frozen=True)
class Ended:
    """The last event of a sequence; its blocks are free.

    Attributes:
        message: what went wrong when ``finish`` is ERROR.
        cached_tokens: prompt tokens whose KV was found rather than computed.
    """

    request_id: str
    finish: Finish
    index: int = 0
    message: str = ""
    cached_tokens: int = 0


StepEvent = TokenOut | Paused | Ended


@dataclass(frozen=True)
class EngineStats:
    """Counters since start, and what is there now.

    Attributes:
        batch_tokens: tokens of the last step.
        blocks_used: blocks that some sequence holds; cached ones are free.
        prefix_hit_tokens: prompt tokens found in the cache, ever.
        computed_tokens: tokens that went through a forward pass, ever.
        step_us: of the last step.
        steps_us: of all steps.
    """

    steps: int
    batch_tokens: int
    running: int
    waiting: int
    paused: int
    preempted: int
    blocks_used: int
    blocks_total: int
    prefix_hit_tokens: int
    prefix_query_tokens: int
    computed_tokens: int
    step_us: int
    steps_us: int
