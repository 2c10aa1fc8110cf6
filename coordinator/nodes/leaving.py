"""Nodes that a rig names no longer: let go of once nothing is under way at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coordinator.nodes.llm import LlmNode
from coordinator.nodes.retrieval import RetrievalNode

Node = LlmNode | RetrievalNode


@dataclass(frozen=True)
class LeaveConfig:
    """How nodes are let go of.

    Attributes:
        quiet_s: a node is let go of after so long without a call: a request between two
            calls may still have chosen it.
        longest_s: calls that last longer are broken.
    """

    quiet_s: float = 1.0
    longest_s: float = 600.0
    period_s: float = 0.02


class Leaving:
    """Waits until nodes are idle, then closes the connections to them.

    Args:
        gone: told of each node that was closed.
    """

    def __init__(
        self, config: LeaveConfig | None = None, gone: Callable[[Node], None] = lambda _: None
    ) -> None:
        self._config = config or LeaveConfig()
        self._gone = gone
        self._tasks: dict[asyncio.Task[None], Node] = {}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that are not closed yet."""
        return tuple(self._tasks.values())

    def let_go(self, nodes: Iterable[Node]) -> None:
        """Nobody new chooses these nodes; calls under way at them may end.

        They go once all of them are idle: what one has read may be written by another.
        """
        together = tuple(nodes)
        for node in together:
            task = asyncio.get_running_loop().create_task(self._leave(node, together))
            self._tasks[task] = node
            task.add_done_callback(self._tasks.pop)

    async def close(self) -> None:
        """Breaks what is still under way."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self, node: Node, together: tuple[Node, ...]) -> None:
        config = self._config
        now_s = idle_since_s = time.monotonic()
        give_up_s = now_s + config.longest_s
        try:
            while now_s < give_up_s and now_s - idle_since_s < config.quiet_s:
                await asyncio.sleep(config.period_s)
                now_s = time.monotonic()
                if any(each.inflight for each in together):
                    idle_since_s = now_s
        finally:
            await node.close()
            self._gone(node)
