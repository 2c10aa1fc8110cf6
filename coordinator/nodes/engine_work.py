"""What the engines of LLM nodes tell of their work: for Prometheus and for the status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.registry import Collector

from coordinator.nodes.work import Family, counters_of, gauges_of
from ragschema.wire.llm_pb2 import EngineStatus

#: metric, field of the status, unit's size in that of the field, meaning
_COUNTERS: Final = (
    ("steps", "steps_total", 1.0, "Forward passes"),
    ("computed_tokens", "computed_tokens_total", 1.0, "Tokens that went through them"),
    ("step_seconds", "step_us_total", 1e-6, "Time steps took, summed"),
    ("preemptions", "preempted_total", 1.0, "Times a sequence gave up its blocks"),
    ("prefix_query_tokens", "prefix_query_tokens_total", 1.0, "Prompt tokens looked for in cache"),
    ("prefix_hit_tokens", "prefix_hit_tokens_total", 1.0, "Prompt tokens found there"),
)
_GAUGES: Final = (
    ("batch_tokens", "batch_tokens", 1.0, "Tokens of the last step"),
    ("last_step_seconds", "step_us", 1e-6, "Time the last step took"),
    ("running_sequences", "running", 1.0, "Sequences in the batch at the last check"),
    ("waiting_sequences", "waiting", 1.0, "Sequences that waited for a place in it"),
    ("paused_sequences", "paused", 1.0, "Sequences that waited for retrieved context"),
    ("kv_blocks_used", "kv_blocks_used", 1.0, "KV blocks that sequences hold"),
    ("kv_blocks", "kv_blocks", 1.0, "KV blocks there are"),
)


class EngineWork(Collector):
    """Remembers what each node's engine told last."""

    def __init__(self) -> None:
        self._told: dict[str, EngineStatus] = {}

    def told(self, node: str, status: EngineStatus) -> None:
        """``node`` is a name of the rig file."""
        self._told[node] = status

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._told.pop(node, None)

    def prefix_tokens(self) -> tuple[int, int]:
        """Prompt tokens that all engines looked for in their caches, and found there."""
        told = self._told.values()
        asked = sum(status.prefix_query_tokens_total for status in told)
        return asked, sum(status.prefix_hit_tokens_total for status in told)

    def collect(self) -> Iterator[Family]:
        told = dict(self._told)
        yield from counters_of("ragrig_engine", told, _COUNTERS)
        yield from gauges_of("ragrig_engine", told, _GAUGES)


def engine_detail(status: EngineStatus) -> Mapping[str, object]:
    """For ``/v1/status``; shares are None before there is anything to share."""
    steps, asked = status.steps_total, status.prefix_query_tokens_total
    return {
        "steps_total": steps,
        "computed_tokens_total": status.computed_tokens_total,
        "batch_tokens": status.batch_tokens,
        "batch_tokens_mean": status.computed_tokens_total / steps if steps else None,
        "step_ms": status.step_us / 1e3,
        "step_ms_mean": status.step_us_total / 1e3 / steps if steps else None,
        "running": status.running,
        "waiting": status.waiting,
        "paused": status.paused,
        "preempted_total": status.preempted_total,
        "kv_tokens": status.kv_blocks * status.block_tokens,
        "kv_use": status.kv_blocks_used / status.kv_blocks if status.kv_blocks else None,
        "prefix_hit_rate": status.prefix_hit_tokens_total / asked if asked else None,
        "max_tokens": status.max_tokens,
    }
