"""Finds stop strings in streamed text, also across the borders of pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Lets text through until a stop string begins; the stop itself is cut.

    Text that may still turn out to be the head of a stop string is held back,
    and nothing else.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str, ends: bool = True) -> str:
        """Text that may be sent now; nothing more comes once ``stopped`` is true.

        Args:
            ends: False: a stop string that ends in this text is let through.
        """
        if self.stopped:
            return ""
        # What was held back has no end of a stop string, or one that was let through.
        held, text = len(self._held), self._held + text
        found = [
            place
            for stop in self._stops
            if ends and (place := text.find(stop, max(0, held - len(stop) + 1))) >= 0
        ]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
