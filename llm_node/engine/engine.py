"""The engine: one step is schedule, run, commit."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path

from llm_node.engine.config import EngineConfig
from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import EngineRequest, EngineStats, StepEvent
from ragschema.types import F32, I32


class Engine:
    """Serves requests over one model; one thread only, see ``worker.EngineWorker``."""

    @staticmethod
    def load(directory: Path, config: EngineConfig) -> Engine:
        """Loads a checkpoint directory and sizes the KV cache."""
        raise NotImplementedError

    def add(self, request: EngineRequest) -> None:
        """Queues a request."""
        raise NotImplementedError

    def cancel(self, request_id: str) -> None:
        """Ends a request at once; unknown ones are ignored."""
        raise NotImplementedError

    def step(self) -> list[StepEvent]:
        """One forward pass over what is due; [] when nothing is."""
        raise NotImplementedError

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something or end a request."""
        raise NotImplementedError

    def resume(self, request_id: str, extra_ids: Seq[int]) -> None:
        """Goes on with a paused sequence behind ``extra_ids``, which are read."""
        raise NotImplementedError

    def resume_mixed(
        self,
        request_id: str,
        neighbour_tokens: I32,
        neighbour_distances: F32,
        lam: float,
        temperature: float,
    ) -> None:
        """Draws the held token from lam * p_knn + (1 - lam) * p_lm."""
        raise NotImplementedError

    def export_kv(self, request_id: str) -> KvSnapshot:
        """The KV of a sequence that has not ended."""
        raise NotImplementedError

    def import_kv(self, request: EngineRequest, snapshot: KvSnapshot, output_ids: Seq[int]) -> None:
        """Queues a request whose prompt is computed and first tokens are known."""
        raise NotImplementedError

    def stats(self) -> EngineStats:
        """Counters and gauges."""
        raise NotImplementedError

    def check_integrity(self) -> None:
        """Raises InternalError when a block leaked or is held twice."""
        raise NotImplementedError
