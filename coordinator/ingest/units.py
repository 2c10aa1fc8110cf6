"""A text as a row of indivisible units: its tokens, with the characters between them.

Units cover the text without gaps. Chunks are runs of units, so nothing a
tokenizer leaves out (spaces, characters it does not know) can get lost.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from coordinator.ingest.document import Heading
from ragschema.types import I32

#: A longer run without a token border (a base64 blob is one token) is divided.
MAX_UNIT_CHARS = 1000


class Border(IntEnum):
    """How good a place before a unit is to cut; larger is better."""

    INSIDE_WORD = 0
    WORD = 1
    SENTENCE = 2
    PARAGRAPH = 3
    HEADING = 4


@dataclass(frozen=True)
class Units:
    """Unit i is ``text[starts[i]:starts[i + 1]]``.

    Attributes:
        starts: ascending; the last entry is the text's length.
        tokens: tokens of each unit, 0 or 1.
        headings: units that begin at a heading.
    """

    text: str
    starts: Sequence[int]
    tokens: Sequence[int]
    headings: frozenset[int]

    def __len__(self) -> int:
        return len(self.tokens)

    def border(self, unit: int) -> Border:
        """The border before a unit."""
        if unit in self.headings:
            return Border.HEADING
        start = self.starts[unit]
        before = self.text[max(0, start - 8) : start]
        stripped = before.rstrip()
        gap = before[len(stripped) :]
        if "\n\n" in gap:
            return Border.PARAGRAPH
        if not gap:
            joined = before[-1:].isalnum() and self.text[start : start + 1].isalnum()
            return Border.INSIDE_WORD if joined else Border.WORD
        if "\n" in gap or stripped.endswith((".", "!", "?", ":", ";", "\u3002")):
            return Border.SENTENCE
        return Border.WORD


def units_of(text: str, offsets: I32, headings: Sequence[Heading]) -> Units:
    """Divides a text.

    Args:
        offsets: int32 [tokens, 2], start and end characters, ascending.
    """
    starts, tokens = _token_starts(text, offsets)
    starts, tokens = _divided(starts, tokens, len(text))
    _pull_to_headings(text, starts, headings)
    known = {start: i for i, start in enumerate(starts[:-1])}
    at_heading = frozenset(known[h.offset] for h in headings if h.offset in known)
    return Units(text, starts, tokens, at_heading)


def _token_starts(text: str, offsets: I32) -> tuple[list[int], list[int]]:
    """One unit per token, reaching to the next; a prefix without tokens joins the first."""
    starts: list[int] = []
    tokens: list[int] = []
    for start in offsets[:, 0].tolist():
        # Tokenizers of bytes give several tokens the same character.
        if starts and start <= starts[-1]:
            tokens[-1] += 1
        elif start < len(text):
            starts.append(start)
            tokens.append(1)
    if not starts:
        return [0, len(text)], [0]
    starts[0] = 0
    return [*starts, len(text)], tokens


def _divided(starts: list[int], tokens: list[int], length: int) -> tuple[list[int], list[int]]:
    """Divides overlong units evenly; a piece of one may have to be a token again."""
    new_starts: list[int] = []
    new_tokens: list[int] = []
    for i, count in enumerate(tokens):
        size = starts[i + 1] - starts[i]
        pieces = max(1, -(-size // MAX_UNIT_CHARS))
        new_starts.extend(starts[i] + size * p // pieces for p in range(pieces))
        new_tokens.extend([count] * pieces)
    return [*new_starts, length], new_tokens


def _pull_to_headings(text: str, starts: list[int], headings: Sequence[Heading]) -> None:
    """Moves a unit's start back to a heading that begins in the gap before its token."""
    for heading in headings:
        following = bisect.bisect_left(starts, heading.offset)
        if 0 < following < len(starts) - 1 and starts[following] != heading.offset:
            gap = text[heading.offset : starts[following]]
            if not gap.strip() and heading.offset > starts[following - 1]:
                starts[following] = heading.offset
