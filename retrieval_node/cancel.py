"""Stopping a search that nobody waits for any more."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from ragschema.errors import Cancelled, DeadlineExceeded
from retrieval_node.native.loader import native


class Cancellation:
    """Set from any thread; seen by compiled and by Python code.

    Args:
        deadline_s: on ``time.monotonic()``'s clock; None for none.

    Attributes:
        handle: ``native.Cancel`` for compiled calls; None without the extension.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self._deadline_s = deadline_s
        self._set = False
        module = native()
        self.handle: Any | None = None if module is None else module.Cancel(deadline_s)

    def set(self) -> None:
        """Stops the search at its next piece of work."""
        self._set = True
        if self.handle is not None:
            self.handle.set()

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded when the search should stop."""
        if self._set:
            raise_stopped("cancelled")
        if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            raise_stopped("deadline")


def raise_stopped(why: str) -> NoReturn:
    """The typed error of a search stopped by "cancelled" or "deadline"."""
    if why == "cancelled":
        raise Cancelled("the caller went away")
    assert why == "deadline", f"a search cannot be stopped by {why!r}"
    raise DeadlineExceeded(
        "the deadline passed before the search was done",
        hint="allow more time, or ask for less",
    )
