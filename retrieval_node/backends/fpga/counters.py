"""What a card has done since its driver was opened."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable


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


@runtime_checkable
class HasCard(Protocol):
    """A backend with a card behind it."""

    @property
    def card(self) -> CardTotals:
        """What the card has done so far."""
