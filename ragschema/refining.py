"""What the coordinator does around a search, when a rig asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from ragschema.errors import InvalidInput

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class RerankConfig:
    """A cross-encoder orders what a search by text found.

    Attributes:
        candidates: passages it looks at; a request that asks for more gets more.
    """

    __pydantic_config__ = _STRICT
    candidates: Annotated[int, Field(ge=1, le=1024)] = 20


@dataclass(frozen=True)
class RewriteConfig:
    """A language model turns questions into search queries.

    Attributes:
        max_queries: of one question; they are searched for together.
        history_turns: of the chat that it reads, the latest.
    """

    __pydantic_config__ = _STRICT
    max_queries: Annotated[int, Field(ge=1, le=16)] = 3
    history_turns: Annotated[int, Field(ge=0, le=256)] = 6


def check_rerank(config: RerankConfig | None, max_k: int, source: str) -> None:
    """Raises InvalidInput for more candidates than a search may give."""
    if config is not None and config.candidates > max_k:
        raise InvalidInput(
            f"{source}: {config.candidates} candidates are more than limits.max_k, {max_k}",
            field="coordinator.rerank.candidates",
            hint="lower candidates or raise coordinator.limits.max_k",
        )
