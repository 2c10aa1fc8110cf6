"""Documents to chunks: by tokens, with overlap, at good borders, under their headings.

Pure and deterministic: the same text and token offsets give the same chunks.
"""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coordinator.ingest.document import Heading, ParsedDocument
from coordinator.ingest.units import Border, Units, units_of
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import I32

#: Characters per configured token beyond which a chunk ends whatever its tokens.
_MAX_CHARS_PER_TOKEN = 40
_MAX_PATH = 8


@dataclass(frozen=True)
class DocumentChunk:
    """A piece of a document.

    Attributes:
        chunk_id: 32 hex characters, from document, text and occurrence.
        start: first character in the document's text.
        end: one past the last.
        headings: titles above it, outermost first.
    """

    chunk_id: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...]
    tokens: int


def chunk_document(
    document: ParsedDocument, offsets: I32, config: ChunkingConfig
) -> tuple[DocumentChunk, ...]:
    """Cuts a document.

    Every character that is not blank is in some chunk, and no chunk has more
    than ``config.tokens`` tokens unless a single unit of text does.

    Args:
        offsets: int32 [tokens, 2] of the document's text, in characters.
    """
    units = units_of(document.text, offsets, document.headings)
    paths = _HeadingPaths(document.headings)
    seen: Counter[str] = Counter()
    chunks: list[DocumentChunk] = []
    for first, end_unit in _spans(units, config):
        raw = document.text[units.starts[first] : units.starts[end_unit]]
        text = raw.strip()
        if not text:
            continue
        start = units.starts[first] + len(raw) - len(raw.lstrip())
        chunks.append(
            DocumentChunk(
                chunk_id=chunk_id(document.document_id, text, seen[text]),
                start=start,
                end=start + len(text),
                text=text,
                headings=paths.at(start),
                tokens=sum(units.tokens[first:end_unit]),
            )
        )
        seen[text] += 1
    return tuple(chunks)


def chunk_id(document_id: str, text: str, occurrence: int) -> str:
    """Stable while the chunk's own text is; the same text twice is told apart."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (document_id, text, str(occurrence)):
        raw = part.encode("utf-8", "replace")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def _spans(units: Units, config: ChunkingConfig) -> Iterator[tuple[int, int]]:
    """Runs of units [first, end)."""
    first = 0
    while first < len(units):
        limit = _limit(units, first, config)
        end = _best_end(units, first, limit, config)
        yield first, end
        if end >= len(units):
            return
        first = _next_first(units, first, end, config)


def _limit(units: Units, first: int, config: ChunkingConfig) -> int:
    """One past the last unit that still fits; at least one unit."""
    used = 0
    most_chars = _MAX_CHARS_PER_TOKEN * config.tokens
    for unit in range(first, len(units)):
        used += units.tokens[unit]
        too_long = units.starts[unit + 1] - units.starts[first] > most_chars
        if unit > first and (used > config.tokens or too_long):
            return unit
    return len(units)


def _best_end(units: Units, first: int, limit: int, config: ChunkingConfig) -> int:
    """Where to cut within (first, limit].

    A section that is long enough ends at the next heading, so that a chunk
    belongs to one heading; otherwise the best border of the second half, the
    latest of equals. The end of the document is as good as a heading.
    """
    heading = _next_heading(units, first, limit, config.tokens // 4)
    if heading is not None:
        return heading
    if limit == len(units):
        return limit
    best, best_border = limit, units.border(limit)
    for unit in range(limit - 1, first + (limit - first) // 2, -1):
        border = units.border(unit)
        if border > best_border:
            best, best_border = unit, border
    return best


def _next_heading(units: Units, first: int, limit: int, least: int) -> int | None:
    used = 0
    for unit in range(first, min(limit + 1, len(units))):
        if unit > first and used >= least and unit in units.headings:
            return unit
        if unit < len(units):
            used += units.tokens[unit]
    return None


def _next_first(units: Units, first: int, end: int, config: ChunkingConfig) -> int:
    """The next chunk's first unit: the overlap, begun at its best border.

    A new section does not repeat the end of the one before.
    """
    if units.border(end) is Border.HEADING:
        return end
    used = 0
    earliest = end
    while earliest - 1 > first and used + units.tokens[earliest - 1] <= config.overlap:
        earliest -= 1
        used += units.tokens[earliest]
        if earliest in units.headings:
            return earliest
    best, best_border = end, Border.INSIDE_WORD
    for unit in range(end - 1, earliest - 1, -1):
        border = units.border(unit)
        if border >= min(Border.SENTENCE, max(best_border, Border.WORD)):
            best, best_border = unit, border
    return best if best < end else earliest


class _HeadingPaths:
    """The titles above a character."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._offsets: list[int] = []
        self._paths: list[tuple[str, ...]] = []
        stack: list[Heading] = []
        for heading in headings:
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
            self._offsets.append(heading.offset)
            self._paths.append(tuple(h.title for h in stack[-_MAX_PATH:]))

    def at(self, offset: int) -> tuple[str, ...]:
        position = bisect.bisect_right(self._offsets, offset) - 1
        return self._paths[position] if position >= 0 else ()
