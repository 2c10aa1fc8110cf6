"""Generate: one streamed answer from one LLM node."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from coordinator.nodes.llm import LlmNode
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import lost
from coordinator.stages.gate import Gate
from coordinator.stages.iterative import Asking
from ragschema.errors import Cancelled, Unavailable, UpstreamError
from ragschema.types import CallContext, GenerateEnd, GenerateEvent, GenerateSpec, Role


@dataclass(frozen=True)
class GenerateStart:
    """First event: who answers, and how long the request waited for its turn."""

    model: str
    queued_s: float


class GenerateStage:
    """Admits a request through the gate and streams what the node says."""

    def __init__(self, pool: NodePool, gate: Gate) -> None:
        self._pool = pool
        self._gate = gate

    async def __call__(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateStart | GenerateEvent]:
        """Start, pieces, an end for each answer. Closing the generator stops the node's work.

        A node that is lost before it said anything is replaced by another one.

        Raises:
            Overloaded: the stage's queue is full.
            Unavailable: no node that generates is up, or it was lost midway.
            UpstreamError: the node's stream ended early.
        """
        asked = self.stream(lambda n: n.generate(spec, context), context, ends=spec.sampling.n)
        async with aclosing(asked) as events:
            async for event in events:
                yield event

    async def augmented(
        self, asking: Asking, context: CallContext, fingerprint: str | None = None
    ) -> AsyncGenerator[GenerateStart | GenerateEvent]:
        """The same for answers that ask for context while they are written.

        Args:
            fingerprint: of the model that must write it; None: any.
        """

        def ask(node: LlmNode) -> AsyncGenerator[GenerateEvent]:
            return node.augment(asking.start(), asking.found, context)

        n = asking.answers
        async with aclosing(self.stream(ask, context, fingerprint, ends=n)) as events:
            async for event in events:
                yield event

    async def stream(
        self,
        answer: Callable[[LlmNode], AsyncGenerator[GenerateEvent]],
        context: CallContext,
        fingerprint: str | None = None,
        ends: int = 1,
    ) -> AsyncGenerator[GenerateStart | GenerateEvent]:
        """What ``answer`` gives at the first node that says anything.

        Args:
            ends: that many end events are all.
        """
        tried: frozenset[str] = frozenset()
        async with self._gate.enter(context) as queued_s:
            while True:
                node = self._pool.generator(fingerprint, tried=tried)
                silent = True
                try:
                    async with aclosing(answer(node)) as events:
                        async for event in events:
                            if silent:
                                yield GenerateStart(_model_name(node), queued_s)
                                silent = False
                            yield event
                            ends -= isinstance(event, GenerateEnd)
                            if not ends:
                                return
                    raise UpstreamError(f"node {node.name} ended its answer without saying why")
                except (Unavailable, Cancelled) as error:
                    tried |= {node.name}
                    if not (silent and self._pool.can_generate(tried, fingerprint)):
                        raise lost(node, error) from error


def _model_name(node: LlmNode) -> str:
    model = node.model(Role.GENERATE)
    return model.name if model else ""
