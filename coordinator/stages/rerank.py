"""Rerank: a cross-encoder orders what a search by text found."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from coordinator.nodes.pool import NodePool
from coordinator.stages.another import ask_players
from coordinator.stages.gate import Gate
from coordinator.stages.prompt import titled_text
from coordinator.types import Hit, SearchOutcome, SearchSpec
from ragschema.refining import RerankConfig
from ragschema.types import F32, CallContext, Role


@dataclass(frozen=True)
class RerankStage:
    """One call per request, at another node if the first is lost or full.

    Attributes:
        config: None: hits stay as they are.
    """

    config: RerankConfig | None
    pool: NodePool
    gate: Gate

    def widened(self, spec: SearchSpec) -> SearchSpec:
        """The search that finds enough candidates."""
        if self.config is None or spec.text is None:
            return spec
        return replace(spec, k=max(spec.k, self.config.candidates))

    async def __call__(
        self, spec: SearchSpec, outcome: SearchOutcome, context: CallContext
    ) -> SearchOutcome:
        """The best ``spec.k`` hits, best first; equal scores keep the search's order.

        Raises:
            Unavailable: no node that reranks is up.
            Overloaded: the stage's queue, or every node, is full.
        """
        if self.config is None or spec.text is None or not outcome.hits:
            return outcome
        async with self.gate.enter(context) as queued_s:
            started_s = time.perf_counter()
            texts = [titled_text(hit) for hit in outcome.hits]
            scores = await self._scores(spec.text, texts, context)
            took_ms = (time.perf_counter() - started_s) * 1e3
        timings = replace(
            outcome.timings,
            queue_ms=outcome.timings.queue_ms + queued_s * 1e3,
            rerank_ms=took_ms,
            total_ms=outcome.timings.total_ms + queued_s * 1e3 + took_ms,
        )
        return replace(outcome, hits=_best(outcome.hits, scores, spec.k), timings=timings)

    async def _scores(self, query: str, texts: list[str], context: CallContext) -> F32:
        return await ask_players(
            self.pool, Role.RERANK, lambda node: node.rerank(query, texts, context)
        )


def _best(hits: tuple[Hit, ...], scores: F32, k: int) -> tuple[Hit, ...]:
    order = np.argsort(-scores, kind="stable")[:k]
    return tuple(replace(hits[i], rerank_score=float(scores[i])) for i in order)
