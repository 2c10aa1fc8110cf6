"""What a node has done since it started."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from ragschema.types import SearchStats


@dataclass(frozen=True)
class Totals:
    """Sums over all kernel calls; times in microseconds.

    Attributes:
        queue: over searches; scan and refine are in ``scan_us``, once per call.
    """

    searches: int = 0
    queries: int = 0
    batches: int = 0
    codes: int = 0
    bytes: int = 0
    survivors: int = 0
    queue_us: int = 0
    scan_us: int = 0


class Counters:
    """Adds up from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()

    def searched(self, searches: int, queries: int, queue_us: int, stats: SearchStats) -> None:
        """One kernel call that answered ``searches`` requests; ``stats`` of the call."""
        with self._lock:
            was = self._totals
            self._totals = replace(
                was,
                searches=was.searches + searches,
                queries=was.queries + queries,
                batches=was.batches + 1,
                codes=was.codes + stats.codes_scanned,
                bytes=was.bytes + stats.bytes_scanned,
                survivors=was.survivors + stats.survivors,
                queue_us=was.queue_us + queue_us,
                scan_us=was.scan_us + stats.scan_us + stats.refine_us,
            )

    @property
    def totals(self) -> Totals:
        return self._totals
