"""The KV that an answer goes on from, freed whichever way the answer ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from coordinator.nodes.llm import LlmNode
from ragschema.errors import RagrigError
from ragschema.types import CallContext
from ragschema.wire.kv_pb2 import PrefillReply

_RELEASE_S = 2.0


@dataclass(frozen=True)
class Source:
    """Where a prompt's KV is."""

    node: LlmNode
    reply: PrefillReply


class HeldKv:
    """One prompt's KV at a time; leaving the block frees all that was ever held.

    What is replaced goes at once and aside: the node that has it may hang, and the
    answer does not wait for it.
    """

    def __init__(self) -> None:
        self._source: Source | None = None
        self._releases: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> HeldKv:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go()
        await asyncio.gather(*self._releases)

    def hold(self, source: Source) -> Source:
        """Takes the place of what was held."""
        self._let_go()
        self._source = source
        return source

    def _let_go(self) -> None:
        source, self._source = self._source, None
        # Without a ticket the first token ended the answer, and nothing is kept.
        if source is not None and source.reply.ticket:
            self._releases.append(asyncio.create_task(_release(source)))


async def _release(source: Source) -> None:
    """Best effort: what is not released goes when the request's time is up."""
    with suppress(RagrigError):
        await source.node.client.release_kv(source.reply.ticket, CallContext.start(_RELEASE_S))
