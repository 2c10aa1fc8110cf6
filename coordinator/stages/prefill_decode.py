"""Prefill and decode apart: one node reads the prompt, another writes the answer.

The decode node pulls KV from the prefill node, so it crosses the network once,
and not through here. The prefill node keeps it until the answer has ended: when
a decode node dies, another one pulls it again, reads the tokens that are known
by then, and goes on. Tokens depend on the seed and their place alone, so they
are those that the first node would have drawn. Several answers to a prompt go on
from the same KV; the decode node draws the first token of each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from coordinator.nodes.llm import LlmNode
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import is_loss, lost
from coordinator.stages.another import ask_players
from coordinator.stages.gate import Gate
from coordinator.stages.generate import GenerateStart
from coordinator.stages.held_kv import HeldKv, Source
from ragschema.errors import (
    Cancelled,
    CorruptData,
    Overloaded,
    RagrigError,
    Unavailable,
    UpstreamError,
)
from ragschema.types import (
    CallContext,
    GenerateEnd,
    GenerateEvent,
    GenerateSpec,
    Role,
    TokenLogprob,
    TokenPiece,
)
from ragschema.wire.generating import done_from_wire, generate_to_wire, logprobs_from_wire
from ragschema.wire.kv_pb2 import DecodedTokens, DecodeRequest, KnownAnswer, PrefillReply

log = logging.getLogger(__name__)

#: Prompts are read so often at most; each time another prefill node may be asked.
_MOST_PREFILLS = 3


@dataclass
class _Told:
    """What the client has of one answer, whoever drew it.

    Attributes:
        logprobs: of tokens whose text is not certain yet.
        ended: it has all of it.
    """

    index: int
    ids: list[int] = field(default_factory=list)
    chars: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    ended: bool = False

    def piece(self, tokens: DecodedTokens, at: int) -> TokenPiece | None:
        """The new part of a node's text, which starts ``at`` characters into the answer."""
        self.ids += tokens.token_ids
        self.logprobs += logprobs_from_wire(tokens.logprobs)
        new = tokens.text[max(0, self.chars - at) :]
        self.chars += len(new)
        return self._piece(new, max(1, len(tokens.token_ids))) if new else None

    def first(self, reply: PrefillReply) -> TokenPiece | None:
        """What the prefill node drew."""
        self.ids += reply.token_ids
        self.logprobs += logprobs_from_wire(reply.logprobs)
        self.chars = len(reply.text)
        return self._piece(reply.text, len(reply.token_ids)) if reply.text else None

    def _piece(self, text: str, tokens: int) -> TokenPiece:
        piece = TokenPiece(text, tokens, self.index, tuple(self.logprobs))
        self.logprobs.clear()
        return piece


class PrefillDecodeStage:
    """Admits a request through the gate and streams what the nodes say."""

    def __init__(self, pool: NodePool, gate: Gate) -> None:
        self._pool = pool
        self._gate = gate

    async def __call__(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateStart | GenerateEvent]:
        """Start, pieces, an end for each answer. Closing the generator stops the nodes' work.

        Raises:
            Overloaded: the stage's queue, or every node, is full.
            Unavailable: no node of one of the roles is up any more.
        """
        async with self._gate.enter(context) as queued_s, HeldKv() as kv:
            started_s = time.monotonic()
            source = kv.hold(await self._prefill(spec, context))
            first_us = int((time.monotonic() - started_s) * 1e6)
            reply = source.reply
            # Whoever goes on draws as the first node did.
            spec = replace(spec, sampling=replace(spec.sampling, seed=reply.seed))
            yield GenerateStart(_model_name(source.node), queued_s)
            told = [_Told(index) for index in range(spec.sampling.n)]
            if piece := told[0].first(reply):
                yield piece
            if reply.finish_reason:
                made = len(reply.token_ids)
                yield GenerateEnd(
                    reply.finish_reason, reply.prompt_tokens, made, 0, first_us, first_us
                )
                return
            async with aclosing(self._decode(kv, source, spec, told, context)) as events:
                async for event in events:
                    if isinstance(event, GenerateEnd):
                        total_us = int((time.monotonic() - started_s) * 1e6)
                        # Of several answers the decode node drew the first token.
                        drawn_us = 0 if reply.token_ids else event.first_token_us
                        yield replace(event, first_token_us=first_us + drawn_us, total_us=total_us)
                    else:
                        yield event

    async def _decode(
        self,
        kv: HeldKv,
        source: Source,
        spec: GenerateSpec,
        told: list[_Told],
        context: CallContext,
    ) -> AsyncGenerator[GenerateEvent]:
        """Pieces and ends, from one decode node after the other until one gets there."""
        tried: frozenset[str] = frozenset()
        prefills = 1
        while True:
            node = self._next(source, tried)
            request = _request(source, spec, told)
            try:
                async with aclosing(self._one(node, request, told, context)) as events:
                    async for event in events:
                        yield event
                return
            except RagrigError as error:
                log.warning("trace %s: decode node %s: %s", context.trace_id, node.name, error)
                if _source_failed(error) and prefills < _MOST_PREFILLS:
                    prefills += 1
                    source = kv.hold(await self._prefill(spec, context, source))
                elif is_loss(error) or isinstance(error, Overloaded):
                    tried |= {node.name}
                    self._require_another(node, source, tried, error)
                else:
                    raise

    async def _one(
        self, node: LlmNode, request: DecodeRequest, told: list[_Told], context: CallContext
    ) -> AsyncGenerator[GenerateEvent]:
        """What one decode node adds to what is told already."""
        at = [0] * len(told)
        async with aclosing(node.decode(request, context)) as events:
            async for event in events:
                if event.WhichOneof("event") == "done":
                    end = done_from_wire(event.done)
                    told[end.index].ended = True
                    yield end
                    if all(one.ended for one in told):
                        return
                    continue
                index = event.tokens.index
                piece = told[index].piece(event.tokens, at[index])
                at[index] += len(event.tokens.text)
                if piece is not None:
                    yield piece
        raise UpstreamError(f"node {node.name} ended its answer without saying why")

    async def _prefill(
        self, spec: GenerateSpec, context: CallContext, failed: Source | None = None
    ) -> Source:
        """Reads the prompt at the first prefill node that can.

        Args:
            failed: took part before; what it drew goes on, so the model must be the same.
        """

        async def read(node: LlmNode) -> Source:
            return Source(node, await node.prefill(spec, context))

        if failed is None:
            return await ask_players(self._pool, Role.PREFILL, read)
        # A node that failed may hang, which the checks take longer to find out.
        last = frozenset({failed.node.name})
        return await ask_players(self._pool, Role.PREFILL, read, failed.reply.fingerprint, last)

    def _next(self, source: Source, tried: frozenset[str]) -> LlmNode:
        fingerprint = source.reply.fingerprint
        return self._pool.player(Role.DECODE, fingerprint=fingerprint, tried=tried)

    def _require_another(
        self, node: LlmNode, source: Source, tried: frozenset[str], error: RagrigError
    ) -> None:
        if not self._pool.can_play(Role.DECODE, source.reply.fingerprint, tried):
            raise _told_as(node, error) from error


def _request(source: Source, spec: GenerateSpec, told: list[_Told]) -> DecodeRequest:
    return DecodeRequest(
        request=generate_to_wire(spec),
        source=source.node.address,
        ticket=source.reply.ticket,
        seed=source.reply.seed,
        answers=[KnownAnswer(token_ids=one.ids, ended=one.ended) for one in told],
    )


def _source_failed(error: RagrigError) -> bool:
    """Whether the decode node is well and the KV it was to pull is not."""
    return isinstance(error, UpstreamError | CorruptData) and error.field == "source"


def _told_as(node: LlmNode, error: RagrigError) -> RagrigError:
    return lost(node, error) if isinstance(error, Unavailable | Cancelled) else error


def _model_name(node: LlmNode) -> str:
    return node.reader.name if node.reader else ""
