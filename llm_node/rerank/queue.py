"""The queue in front of a reranker: one call at a time, in order of arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from llm_node.admission import Admission
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
    """Runs passes in one worker thread; a cancelled call ends between two of them.

    Args:
        max_waiting: calls that may wait; more raise Overloaded.
    """

    def __init__(self, reranker: Reranker, max_waiting: int) -> None:
        self._reranker = reranker
        self._calls = Admission("rerank calls", 1, max_waiting)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rerank")

    @property
    def running(self) -> int:
        return self._calls.running

    @property
    def waiting(self) -> int:
        return self._calls.waiting

    async def rank(self, query: str, texts: Sequence[str]) -> Ranked:
        """Scores of texts for a query.

        Raises:
            Overloaded: too many calls wait already.
            InternalError: the model's scores are not finite.
        """
        loop = asyncio.get_running_loop()
        async with self._calls.slot() as queue_us:
            started_s = time.monotonic()
            pairs = await loop.run_in_executor(self._worker, self._reranker.encode, query, texts)
            scores = np.empty(len(pairs), dtype=np.float32)
            for rows in tiles([len(pair.ids) for pair in pairs]):
                batch = [pairs[row] for row in rows]
                scores[rows] = await loop.run_in_executor(
                    self._worker, self._reranker.forward, batch
                )
            compute_us = int((time.monotonic() - started_s) * 1e6)
        tokens = sum(len(pair.ids) for pair in pairs)
        truncated = sum(pair.truncated for pair in pairs)
        return Ranked(scores, tokens, truncated, queue_us, compute_us)

    def close(self) -> None:
        """Lets the running pass end."""
        self._worker.shutdown(wait=False, cancel_futures=True)
