"""Faults of the emulated card, on demand: what a test wants a real card to do once."""

from __future__ import annotations

import enum
import threading
from collections import deque

from retrieval_node.backends.fpga.registers import Error


class Fault(enum.Enum):
    """What goes wrong with a start.

    HANG: it never ends. AXI_READ, AXI_WRITE: memory answers with an error.
    HEAD: a bit of the first result's head turns. ORDER: one of its sums does.
    """

    HANG = "hang"
    AXI_READ = "axi_read"
    AXI_WRITE = "axi_write"
    HEAD = "head"
    ORDER = "order"

    @property
    def error(self) -> Error | None:
        """The error code that it ends with; None: it has none."""
        return {Fault.AXI_READ: Error.AXI_READ, Fault.AXI_WRITE: Error.AXI_WRITE}.get(self)


class FaultPlan:
    """Faults of the starts to come, first come first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._coming: deque[Fault | None] = deque()

    def inject(self, fault: Fault, after: int = 0) -> None:
        """The start after ``after`` good ones goes wrong."""
        with self._lock:
            self._coming.extend([None] * after)
            self._coming.append(fault)

    def next(self) -> Fault | None:
        """What happens to the start that begins now."""
        with self._lock:
            return self._coming.popleft() if self._coming else None
