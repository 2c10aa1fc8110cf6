"""Embed: texts become vectors on an LLM node, many requests per call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from coordinator.nodes.clients import Embedded
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import lost
from ragschema.errors import Cancelled, Unavailable
from ragschema.types import CallContext, EmbedPurpose


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts of one request.

    Attributes:
        fingerprint: the model that must embed them; None: any.
    """

    texts: tuple[str, ...]
    purpose: EmbedPurpose
    fingerprint: str | None = None

    def key(self) -> Hashable:
        """Requests with equal keys may share a call."""
        return (self.purpose, self.fingerprint)


class EmbedStage:
    """One Embed call for a whole batch, at another node if the first is lost."""

    def __init__(self, pool: NodePool) -> None:
        self._pool = pool

    async def __call__(
        self, requests: Sequence[EmbedRequest], context: CallContext
    ) -> list[Embedded]:
        """Vectors per request; all requests have the same key.

        Raises:
            Unavailable: no node that embeds is up.
            IncompatibleRequest: none of them runs the wanted model.
        """
        texts = [text for request in requests for text in request.texts]
        whole = await self._embed(texts, requests[0], context)
        tokens = share_out(whole.tokens, [sum(map(len, r.texts)) for r in requests])
        parts = []
        start = 0
        for request, share in zip(requests, tokens, strict=True):
            end = start + len(request.texts)
            parts.append(Embedded(whole.vectors[start:end], share))
            start = end
        return parts

    async def _embed(
        self, texts: Sequence[str], like: EmbedRequest, context: CallContext
    ) -> Embedded:
        tried: frozenset[str] = frozenset()
        while True:
            node = self._pool.embedder(like.fingerprint, tried=tried)
            try:
                return await node.embed(texts, like.purpose, context)
            except (Unavailable, Cancelled) as error:
                tried |= {node.name}
                if not self._pool.can_embed(like.fingerprint, tried):
                    raise lost(node, error) from error


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """Splits ``total`` by the weights into whole numbers that add up to it.

    The node counts tokens per call, not per text; for a request that shared
    its call this is an estimate by the length of its texts.
    """
    sum_of_weights = sum(weights)
    if sum_of_weights == 0:
        return [total // len(weights) + (i < total % len(weights)) for i in range(len(weights))]
    shares = []
    seen = given = 0
    for weight in weights:
        seen += weight
        share = total * seen // sum_of_weights - given
        given += share
        shares.append(share)
    return shares
