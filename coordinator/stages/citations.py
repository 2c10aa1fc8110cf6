"""Citations: finds ``[n]`` markers in an answer while it streams by."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coordinator.types import Citation, Hit

#: A marker: one number, or several as in ``[1, 3]``. Its length is bounded so
#: that an open bracket is not remembered for ever.
_LONGEST = 32
_MARKER = re.compile(r"\[ ?([1-9][0-9]{0,3}(?: ?, ?[1-9][0-9]{0,3})*) ?\]")
_BEGINNING = re.compile(r"\[[0-9, ]*\Z")


class CitationParser:
    """Watches the text; the text itself is passed on untouched by others.

    A number no passage has is text like any other. How the text is cut into
    pieces makes no difference.

    Args:
        hits: the prompt's passages by their numbers.
    """

    def __init__(self, hits: Mapping[int, Hit]) -> None:
        self._hits = hits
        self._cited: set[int] = set()
        self._open = ""

    def feed(self, piece: str) -> list[Citation]:
        """Passages that are referred to for the first time, in order."""
        text = self._open + piece
        found: list[Citation] = []
        end = 0
        for marker in _MARKER.finditer(text):
            end = marker.end()
            if end - marker.start() <= _LONGEST:
                found.extend(self._new(marker.group(1)))
        rest = _BEGINNING.search(text, end)
        self._open = rest.group() if rest and len(rest.group()) < _LONGEST else ""
        return found

    def all(self) -> tuple[Citation, ...]:
        """Every passage of the prompt by number, cited or not."""
        return tuple(
            Citation(number, hit, number in self._cited)
            for number, hit in sorted(self._hits.items())
        )

    def _new(self, numbers: str) -> list[Citation]:
        new = []
        for number in map(int, numbers.split(",")):
            if number in self._hits and number not in self._cited:
                self._cited.add(number)
                new.append(Citation(number, self._hits[number], True))
        return new
