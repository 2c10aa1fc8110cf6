"""What one augmented generation was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ragschema.types import F32, I32, GenerateSpec


@dataclass(frozen=True)
class IntervalPlan:
    """Retrieval behind every so many tokens or behind a trigger.

    Attributes:
        every_tokens: None: only triggers.
        triggers: texts of a single token each.
        max_rounds: after so many, nothing pauses any more.
        recent_tokens: of generated text that the caller is told.
        want_hidden: tell the last hidden state, too.
    """

    every_tokens: int | None
    triggers: tuple[str, ...]
    max_rounds: int
    recent_tokens: int
    want_hidden: bool


@dataclass(frozen=True)
class NeighbourPlan:
    """kNN-LM: retrieval in front of every token.

    Attributes:
        lam: weight of the neighbours, 0 to 1.
        temperature: distances are divided by it.
    """

    lam: float
    temperature: float


@dataclass(frozen=True)
class AugmentPlan:
    """A generation, and when it asks."""

    spec: GenerateSpec
    kind: IntervalPlan | NeighbourPlan


@dataclass(frozen=True)
class Wanted:
    """The sequence waits for an answer.

    Attributes:
        round: 1 and up.
        reason: ``interval``, ``trigger`` or ``neighbours``.
        recent: the end of what was generated.
        hidden: float32 [hidden], None unless asked for.
        index: which of the answers waits.
    """

    round: int
    reason: str
    recent: str
    hidden: F32 | None
    index: int = 0


@dataclass(frozen=True)
class FoundPassages:
    """Texts that are read and not told, in their order."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class FoundNeighbours:
    """int32 [k] tokens and float32 [k] distances; k may be 0."""

    tokens: I32
    distances: F32


Found = FoundPassages | FoundNeighbours
