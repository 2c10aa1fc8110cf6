"""HTML: visible text in blocks, h1..h6 as headings.

The parser reports events instead of building a tree, so memory does not grow
with the nesting, and nesting beyond a bound is refused as soon as it is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

from lxml import etree

from coordinator.ingest.document import ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.decode import read_text
from coordinator.ingest.parsers.outline import OutlineBuilder
from ragschema.errors import UnreadableDocument

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_HIDDEN: Final = frozenset(
    ["script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas"]
)
_INLINE: Final = re.compile(
    r"a|abbr|b|bdi|bdo|cite|code|data|del|dfn|em|font|i|img|ins|kbd|label|mark|q|s|samp|small"
    r"|span|strong|sub|sup|td|th|time|tt|u|var|wbr"
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_SPACES = re.compile(r"[ \t\n\f\v]+")
_FEED_BYTES = 1 << 16


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document, titled by <title> or the first heading."""
    decoded = read_text(path, _declared_charset(path))
    reader = _Reader(limits)
    _feed(reader, decoded.text.encode("utf-8", "replace"))
    outline = reader.outline
    first = outline.headings[0].title if outline.headings else ""
    return (
        ParsedDocument(
            document_id=name,
            title=reader.title or first or PurePath(name).name,
            text=outline.text(),
            headings=outline.headings,
            source=str(path),
            note=decoded.note,
        ),
    )


def _declared_charset(path: Path) -> str | None:
    with path.open("rb") as source:
        match = _CHARSET.search(source.read(4096))
    return match.group(1).decode("ascii") if match else None


def _feed(reader: _Reader, raw: bytes) -> None:
    parser = etree.HTMLParser(target=reader, encoding="utf-8", huge_tree=True, no_network=True)
    try:
        for start in range(0, len(raw), _FEED_BYTES):
            parser.feed(raw[start : start + _FEED_BYTES])
        parser.close()
    except etree.LxmlError as error:
        raise UnreadableDocument(f"is no HTML that can be read: {error}") from error


class _Reader:
    """Receives the parser's events."""

    def __init__(self, limits: ParseLimits) -> None:
        self.outline = OutlineBuilder(limits.max_text_chars)
        self._title: list[str] = []
        self._max_depth = limits.max_depth
        self._depth = 0
        self._hidden = 0
        self._preformatted = 0
        self._in_title = False
        self._text: list[str] = []

    @property
    def title(self) -> str:
        return " ".join("".join(self._title).split())[:300]

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        del attributes
        self._depth += 1
        if self._depth > self._max_depth:
            raise UnreadableDocument(f"nests elements more than {self._max_depth} deep")
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "title":
            self._in_title = True
        elif tag == "br":
            self._text.append("\n")
        elif not _INLINE.fullmatch(tag):
            self._flush()
        if tag == "pre":
            self._preformatted += 1

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag in _HIDDEN:
            self._hidden -= 1
        elif tag == "title":
            self._in_title = False
        elif tag in _HEADINGS:
            self.outline.heading(_HEADINGS[tag], "".join(self._text))
            self._text.clear()
        elif tag in ("td", "th"):
            self._text.append("\t")
        elif tag != "br" and not _INLINE.fullmatch(tag):
            self._flush()
        if tag == "pre":
            self._preformatted -= 1

    def data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
        elif not self._hidden:
            self._text.append(data if self._preformatted else _SPACES.sub(" ", data))

    def comment(self, text: str) -> None:
        """Comments are not visible."""

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        # A cell's end is only a tab, so that a table row stays on one line.
        text = "".join(self._text)
        self._text.clear()
        if not self._preformatted:
            text = "\n".join(line.strip() for line in text.split("\n"))
        self.outline.block(text)
