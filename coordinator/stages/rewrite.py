"""Rewrite: a language model turns a question into search queries."""

from __future__ import annotations

import time
from dataclasses import dataclass

from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from coordinator.stages.another import ask_players
from coordinator.stages.gate import Gate
from coordinator.types import QuerySpec
from ragschema.refining import RewriteConfig
from ragschema.types import CallContext, Role
from ragschema.wire.llm_pb2 import ChatMessage, RewriteReply, RewriteRequest


@dataclass(frozen=True)
class Rewritten:
    """What to search for.

    Attributes:
        queries: none: the question as it stands.
        ran_s: of the node's call; None: there was none.
    """

    queries: tuple[str, ...] = ()
    queued_s: float = 0.0
    ran_s: float | None = None


@dataclass(frozen=True)
class RewriteStage:
    """One call per question, at another node if the first is lost or full.

    Attributes:
        config: None: questions stay as they are.
    """

    config: RewriteConfig | None
    pool: NodePool
    gate: Gate
    metrics: Metrics

    async def __call__(self, spec: QuerySpec, context: CallContext) -> Rewritten:
        """
        Raises:
            Unavailable: no node that rewrites is up.
            Overloaded: the stage's queue, or every node, is full.
        """
        if self.config is None:
            return Rewritten()
        # Counted from the front: [-0:] would be all turns, not none.
        history = spec.history[max(0, len(spec.history) - self.config.history_turns) :]
        request = RewriteRequest(
            question=spec.question,
            history=[ChatMessage(role=turn.role, content=turn.content) for turn in history],
            max_queries=self.config.max_queries,
        )
        async with self.gate.enter(context) as queued_s:
            started_s = time.perf_counter()
            reply = await self._ask(request, context)
            ran_s = time.perf_counter() - started_s
        self.metrics.rewrote(reply.prompt_tokens + reply.completion_tokens)
        queries = tuple(query for query in reply.queries if query.strip())
        return Rewritten(queries[: self.config.max_queries], queued_s, ran_s)

    async def _ask(self, request: RewriteRequest, context: CallContext) -> RewriteReply:
        return await ask_players(
            self.pool, Role.REWRITE, lambda node: node.rewrite(request, context)
        )
