"""How answers are written: in one go, or asking for context meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput

_STRICT = ConfigDict(extra="forbid", strict=True)
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class IntervalConfig:
    """Retrieval behind every so many tokens, or behind a trigger.

    Attributes:
        every_tokens: None: only triggers.
        triggers: texts that are one token of the model each, such as ``.``.
        k: passages asked for in a round; those the answer has already are left out.
        max_rounds: of one answer.
        recent_tokens: of the answer's end, which are the query.
    """

    __pydantic_config__ = _STRICT
    every_tokens: Positive | None = 64
    triggers: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    k: Annotated[int, Field(ge=1, le=64)] = 2
    max_rounds: Annotated[int, Field(ge=1, le=4096)] = 8
    recent_tokens: Annotated[int, Field(ge=1, le=4096)] = 32


@dataclass(frozen=True)
class KnnConfig:
    """kNN-LM: p = lam * p_knn + (1 - lam) * p_lm, at every token.

    Attributes:
        collection: a datastore made by ``ragrig index knnlm`` with the same model.
        k: neighbours of a token.
        lam: their weight.
        temperature: squared distances are divided by it.
    """

    __pydantic_config__ = _STRICT
    collection: str
    k: Annotated[int, Field(ge=1, le=1024)] = 16
    lam: Annotated[float, Field(ge=0, le=1)] = 0.25
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 10.0


@dataclass(frozen=True)
class GenerationConfig:
    """Which of the pipelines writes answers.

    Attributes:
        kind: ``plain``, ``interval`` or ``knn``.
        interval: read by ``interval``.
        knn: needed by ``knn``.
    """

    __pydantic_config__ = _STRICT
    kind: Literal["plain", "interval", "knn"] = "plain"
    interval: IntervalConfig = field(default_factory=IntervalConfig)
    knn: KnnConfig | None = None


def check_generation(config: GenerationConfig, max_k: int, source: str) -> None:
    """Raises InvalidInput, naming the field, for what can never be served.

    Args:
        max_k: the largest k of any search.
    """
    where = "coordinator.generation"
    if config.kind == "knn" and config.knn is None:
        raise InvalidInput(
            f"{source}: kind knn has no datastore",
            field=f"{where}.knn",
            hint="name one: knn: {collection: NAME}; `ragrig index knnlm` makes it",
        )
    if config.kind == "knn" and config.knn is not None and config.knn.k > max_k:
        raise InvalidInput(
            f"{source}: {config.knn.k} neighbours are more than limits.max_k, {max_k}",
            field=f"{where}.knn.k",
            hint="lower k or raise coordinator.limits.max_k",
        )
    interval = config.interval
    if config.kind == "interval" and interval.every_tokens is None and not interval.triggers:
        raise InvalidInput(
            f"{source}: kind interval never retrieves",
            field=f"{where}.interval.every_tokens",
            hint="set every_tokens, triggers, or both",
        )
