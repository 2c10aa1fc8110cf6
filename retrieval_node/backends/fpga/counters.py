"""What a card has done since its driver was opened, and its export as metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class CardTotals:
    """Sums over all starts.

    Attributes:
        cycles, codes, bytes_read, stall_*: from the card's registers.
        sent_bytes, fetched_bytes: synced to and from the card.
        host_queries: scanned by the host, for a tie or a mask that the card cannot do.
        faults, resets: of the card.
    """

    starts: int = 0
    queries: int = 0
    cycles: int = 0
    codes: int = 0
    bytes_read: int = 0
    stall_memory: int = 0
    stall_table: int = 0
    stall_topk: int = 0
    stall_result: int = 0
    sent_bytes: int = 0
    fetched_bytes: int = 0
    host_queries: int = 0
    faults: int = 0
    resets: int = 0


_HELP: Final = {
    "starts": "Starts of the card",
    "queries": "Queries that the card answered",
    "cycles": "Cycles between start and done; modelled on an emulated card",
    "codes": "Codes that the card scanned",
    "bytes_read": "Bytes of codes that the card read",
    "stall_memory": "Cycles in which lanes waited for codes",
    "stall_table": "Cycles in which lanes waited for a table",
    "stall_topk": "Cycles in which lanes waited for the top-K queue",
    "stall_result": "Cycles in which queries waited for their results to be written",
    "sent_bytes": "Bytes synced to the card",
    "fetched_bytes": "Bytes synced from the card",
    "host_queries": "Queries that the host scanned in the card's place",
    "faults": "Faults of the card",
    "resets": "Times the card was programmed anew",
}


class CardCounters:
    """Adds up from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = dict.fromkeys((field.name for field in fields(CardTotals)), 0)

    def add(self, **more: int) -> None:
        """Adds to the named totals."""
        with self._lock:
            for name, n in more.items():
                self._sums[name] += n

    @property
    def totals(self) -> CardTotals:
        with self._lock:
            return CardTotals(**self._sums)


class CardCollector(Collector):
    """The totals of one card as ``ragrig_fpga_*_total``, for a Prometheus registry."""

    def __init__(self, device: str, counters: CardCounters) -> None:
        self._device, self._counters = device, counters

    def collect(self) -> Iterable[Metric]:
        totals = self._counters.totals
        for field in fields(CardTotals):
            metric = CounterMetricFamily(
                f"ragrig_fpga_{field.name}", _HELP[field.name], labels=["device"]
            )
            metric.add_metric([self._device], getattr(totals, field.name))
            yield metric
