"""What nodes tell of their work, for Prometheus; here that of retrieval nodes.

The coordinator asks every node for its status anyway; the last answer is
exported, so that a node needs no HTTP server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ragschema.wire.retrieval_pb2 import RetrievalStatusReply

#: metric, field of the status, unit's size in that of the field, meaning
_COUNTERS: Final = (
    ("searches", "searches_total", 1.0, "Searches answered"),
    ("queries", "queries_total", 1.0, "Queries in these searches"),
    ("batches", "batches_total", 1.0, "Kernel calls that answered them"),
    ("scanned_codes", "codes_scanned_total", 1.0, "Codes read by scans"),
    ("scanned_bytes", "bytes_scanned_total", 1.0, "Bytes of these codes"),
    ("survivors", "survivors_total", 1.0, "Codes that passed a filter and were computed in full"),
    ("queue_seconds", "queue_us_total", 1e-6, "Time searches waited in the node, summed"),
    ("scan_seconds", "scan_us_total", 1e-6, "Time kernel calls took, summed"),
)
_GAUGES: Final = (
    ("running", "running", 1.0, "Searches in kernel calls at the last check"),
    ("waiting", "waiting", 1.0, "Searches that waited for one at the last check"),
)


Family = CounterMetricFamily | GaugeMetricFamily


def counters_of(
    prefix: str, told: Mapping[str, Any], table: Sequence[tuple[str, str, float, str]]
) -> Iterator[Family]:
    """Rows of (metric, field of what a node told, factor, meaning) as counters by node."""
    for name, field, scale, what in table:
        counter = CounterMetricFamily(f"{prefix}_{name}", what, labels=["node"])
        for node, status in told.items():
            counter.add_metric([node], getattr(status, field) * scale)
        yield counter


def gauges_of(
    prefix: str, told: Mapping[str, Any], table: Sequence[tuple[str, str, float, str]]
) -> Iterator[Family]:
    """The same as gauges."""
    for name, field, scale, what in table:
        gauge = GaugeMetricFamily(f"{prefix}_{name}", what, labels=["node"])
        for node, status in told.items():
            gauge.add_metric([node], getattr(status, field) * scale)
        yield gauge


@dataclass(frozen=True)
class _Told:
    status: RetrievalStatusReply
    bytes_per_s: float | None


class NodeWork(Collector):
    """Remembers each node's last status; ``collect`` turns them into metrics."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def told(self, node: str, status: RetrievalStatusReply) -> None:
        """``node`` is a name of the rig file."""
        before = self._told.get(node)
        self._told[node] = _Told(status, _speed(before, status))

    def collect(self) -> Iterator[Family]:
        told = dict(self._told)
        statuses = {node: known.status for node, known in told.items()}
        yield from counters_of("ragrig_node", statuses, _COUNTERS)
        yield from gauges_of("ragrig_node", statuses, _GAUGES)
        speed = GaugeMetricFamily(
            "ragrig_node_scan_bytes_per_second",
            "Speed of scans between the last two checks with scans in between",
            labels=["node"],
        )
        for node, known in told.items():
            if known.bytes_per_s is not None:
                speed.add_metric([node], known.bytes_per_s)
        yield speed


def _speed(before: _Told | None, now: RetrievalStatusReply) -> float | None:
    """None before the first scan; a node that was restarted starts anew."""
    if before is None:
        return None
    scan_us = now.scan_us_total - before.status.scan_us_total
    scanned_bytes = now.bytes_scanned_total - before.status.bytes_scanned_total
    if scan_us <= 0 or scanned_bytes < 0:
        return before.bytes_per_s
    return scanned_bytes / (scan_us * 1e-6)
