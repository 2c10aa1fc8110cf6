"""Builds text and its headings together, so that offsets are right by construction."""

from __future__ import annotations

from coordinator.ingest.document import Heading
from ragschema.errors import PayloadTooLarge

_MAX_HEADING_CHARS = 200


class OutlineBuilder:
    """Collects blocks of text; blocks are parted by an empty line.

    Args:
        max_chars: text beyond which the document is refused.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []

    def block(self, text: str) -> None:
        """Adds a paragraph; blank ones are left out."""
        text = text.strip()
        if not text:
            return
        if self._parts:
            self._append("\n\n")
        self._append(text)

    def heading(self, level: int, title: str) -> None:
        """Adds a heading as a paragraph of its own."""
        title = " ".join(title.split())
        if not title:
            return
        if self._parts:
            self._append("\n\n")
        self._headings.append(Heading(self._length, level, title[:_MAX_HEADING_CHARS]))
        self._append(title)

    def _append(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._max_chars:
            raise PayloadTooLarge(
                f"holds more than {self._max_chars} characters of text", hint="split it"
            )
        self._parts.append(text)

    @property
    def headings(self) -> tuple[Heading, ...]:
        return tuple(self._headings)

    def text(self) -> str:
        return "".join(self._parts)
