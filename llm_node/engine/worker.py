"""One thread that runs the engine, and asyncio queues with its events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from llm_node.engine.engine import Engine
from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import EngineRequest, EngineStats, StepEvent
from ragschema.types import F32, I32


class EngineWorker:
    """The engine's operations for an event loop; start() and close() once each."""

    def __init__(self, engine: Engine, max_waiting: int = 1024) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Starts the thread; call in the event loop that will use it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Ends every request and the thread, after the running step."""
        raise NotImplementedError

    def stream(self, request: EngineRequest) -> AsyncGenerator[StepEvent, None]:
        """The request's events; closing the iterator cancels it.

        Raises:
            InvalidInput, PayloadTooLarge: the engine refuses the request.
        """
        raise NotImplementedError

    def stream_imported(
        self, request: EngineRequest, snapshot: KvSnapshot, output_ids: Sequence[int]
    ) -> AsyncGenerator[StepEvent, None]:
        """The same for ``Engine.import_kv``."""
        raise NotImplementedError

    async def cancel(self, request_id: str) -> None:
        """See Engine.cancel."""
        raise NotImplementedError

    async def resume(self, request_id: str, extra_ids: Sequence[int]) -> None:
        """See Engine.resume."""
        raise NotImplementedError

    async def resume_mixed(
        self,
        request_id: str,
        neighbour_tokens: I32,
        neighbour_distances: F32,
        lam: float,
        temperature: float,
    ) -> None:
        """See Engine.resume_mixed."""
        raise NotImplementedError

    async def export_kv(self, request_id: str) -> KvSnapshot:
        """See Engine.export_kv."""
        raise NotImplementedError

    async def stats(self) -> EngineStats:
        """See Engine.stats."""
        raise NotImplementedError
