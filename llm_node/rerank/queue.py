"""The queue in front of a reranker: one call at a time, in order of arrival."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llm_node.device.scheduler import Lane
from llm_node.roles import Reranker
from llm_node.tiles import tiles
from ragschema.types import F32


@dataclass(frozen=True)
class Ranked:
    """What a Rerank call answers.

    Attributes:
        scores: float32 [n], in the order of the texts; higher answers better.
        tokens: read, queries and special ones included.
        truncated: texts of which only the head was read.
    """

    scores: F32
    tokens: int
    truncated: int
    queue_us: int = 0
    compute_us: int = 0


class RerankQueue:
    """One call at a time, each pass in a turn of its own on the device.

    Args:
        lane: bounds the calls that may wait, and runs them in order.
    """

    def __init__(self, reranker: Reranker, lane: Lane) -> None:
        self._reranker = reranker
        self.lane = lane

    async def rank(self, query: str, texts: Sequence[str]) -> Ranked:
        """Scores of texts for a query; being cancelled ends it between two passes.

        Raises:
            Overloaded: too many calls wait already.
            InternalError: the model's scores are not finite.
        """
        done = await self.lane.run(self._passes(query, texts))
        return replace(done.value, queue_us=done.waited_us, compute_us=done.ran_us)

    def _passes(self, query: str, texts: Sequence[str]) -> Generator[None, None, Ranked]:
        """The device's thread."""
        pairs = self._reranker.encode(query, texts)
        scores = np.empty(len(pairs), dtype=np.float32)
        for number, rows in enumerate(tiles([len(pair.ids) for pair in pairs])):
            if number:
                yield
            scores[rows] = self._reranker.forward([pairs[row] for row in rows])
        tokens = sum(len(pair.ids) for pair in pairs)
        return Ranked(scores, tokens, sum(pair.truncated for pair in pairs))
