"""A call that goes to another node when the first is lost or full."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from coordinator.nodes.llm import LlmNode
from coordinator.nodes.pool import NodePool
from coordinator.nodes.watched import lost
from ragschema.errors import Cancelled, Overloaded, Unavailable
from ragschema.types import Role

_T = TypeVar("_T")


async def ask_players(
    pool: NodePool,
    role: Role,
    ask: Callable[[LlmNode], Awaitable[_T]],
    fingerprint: str | None = None,
    last: frozenset[str] = frozenset(),
) -> _T:
    """What the first node of a role says that can; each is asked once.

    Args:
        fingerprint: of the model; None: any.
        last: nodes that are asked only where there is no other.

    Raises:
        Overloaded, Unavailable: what the last of them met.
    """
    tried: frozenset[str] = frozenset()
    while True:
        others = pool.can_play(role, fingerprint, tried | last)
        skipped = tried | last if others else tried
        node = pool.player(role, fingerprint=fingerprint, tried=skipped)
        try:
            return await ask(node)
        except (Unavailable, Cancelled, Overloaded) as error:
            tried |= {node.name}
            if pool.can_play(role, fingerprint, tried):
                continue
            if isinstance(error, Overloaded):
                raise
            raise lost(node, error) from error
