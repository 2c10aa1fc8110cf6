"""One stage of a pipeline: how long its batches take, and what it holds in memory."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import InvalidInput

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class StageKind(enum.StrEnum):
    """Whose resources a stage takes."""

    CHIP = "chips"
    SERVER = "servers"
    DECODE = "decode"


@dataclass(frozen=True, eq=False)
class StageMemory:
    """What a stage holds on every chip of an allocation.

    Attributes:
        limit_bytes: float64 [counts], of one chip.
        weights_bytes: float64 [counts].
        cache_bytes: float64 [counts, batches], not falling along the batches.
        owners: per row whose weights they are; stages with equal ones hold them once.
    """

    limit_bytes: F64
    weights_bytes: F64
    cache_bytes: F64
    owners: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Mixing:
    """Steps of an engine that reads prompts in pieces beside the answers it writes.

    Attributes:
        alone_s: float64 [counts, batches], a step of every engine while so many answers are written
            by all; inf: not possible.
        mixed_s: likewise, with a piece of a prompt.
        prompt_s: float64 [counts], a prompt of mean length read by itself.
        engines: int64 [counts], that share the answers, each with part of the chips.
        embed_s: float64 [counts], that an engine stands still while a question is embedded beside
            it; 0: it is embedded elsewhere.
        prompt_tokens: that are read of a prompt on average.
        piece_tokens: of a prompt in a step that writes too.
        whole_tokens: of prompts in a step that writes nothing.
    """

    alone_s: F64
    mixed_s: F64
    prompt_s: F64
    engines: I64
    embed_s: F64
    prompt_tokens: float
    piece_tokens: float
    whole_tokens: float


@dataclass(frozen=True, eq=False)
class StageTable:
    """One stage.

    Attributes:
        counts: ascending numbers of chips or servers it may get; ascending per kind.
        batches: ascending batch sizes, each a multiple of the one before.
        latency_s: float64 [counts, batches], of one batch; inf: not possible.
        delay: alone on its chips it admits a request at once (continuous batching), so
            that requests pass it without queueing; its rate still bounds the whole.
        later_s: float64 [counts, iterative batches], of a batch of sequences that come back
            during decode; None: they do not.
        kinds: per row the kind of its chips or servers, ascending; None: kind 0 throughout.
        memory: what it holds beside other stages on the same chips; None: nothing to speak of.
        share: of all requests that go through it; batches count those that do not, too.
        full_s: latencies of batches that go through it whole; None: ``latency_s``.
        spread: float64 [counts, batches], relative half-width of latencies that were measured,
            nan where they are modelled; None: all are.
        mixing: of decode that is on prefill's chips: prompts are read in pieces between its
            tokens; None: it stands still while they are read.
    """

    name: str
    kind: StageKind
    counts: tuple[int, ...]
    batches: tuple[int, ...]
    latency_s: F64
    delay: bool = False
    kinds: tuple[int, ...] | None = None
    later_s: F64 | None = None
    memory: StageMemory | None = None
    share: float = 1.0
    full_s: F64 | None = None
    spread: F64 | None = None
    mixing: Mixing | None = None

    @cached_property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """Kind and count of each row."""
        return tuple(zip(self.kinds or (0,) * len(self.counts), self.counts, strict=True))

    def row(self, count: int, kind: int = 0) -> int:
        """Where the latencies of so many chips of a kind stand."""
        return self.rows.index((kind, count))

    def going_through(self, batch: int) -> int:
        """Requests of a batch that do not pass the stage by, on average, at least one."""
        return max(1, round(batch * self.share))

    def __post_init__(self) -> None:
        where = f"stages.{self.name}"
        if self.kinds is not None and len(self.kinds) != len(self.counts):
            raise InvalidInput(
                f"{len(self.kinds)} kinds for {len(self.counts)} counts", field=where
            )
        if self.latency_s.shape != (len(self.counts), len(self.batches)) or not self.counts:
            raise InvalidInput(
                f"a table of shape {self.latency_s.shape} does not match {len(self.counts)} counts"
                f" and {len(self.batches)} batches",
                field=where,
                hint="give one latency per count and batch",
            )
        singles = [(batch,) for batch in self.batches]
        for what, values in (("count", self.rows), ("batch", singles)):
            rising = all(a < b for a, b in itertools.pairwise(values))
            if not rising or min(value[-1] for value in values) < 1:
                raise InvalidInput(
                    f"{what} sizes {[value[-1] for value in values]} are not positive and"
                    " ascending",
                    field=where,
                )
        if np.isnan(self.latency_s).any() or (self.latency_s <= 0).any():
            raise InvalidInput(
                "a latency is not a positive number",
                field=where,
                hint="leave rows out that are not possible",
            )
