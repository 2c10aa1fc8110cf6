"""What a parser makes of a file, and its JSON form between processes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from coordinator.types import FilterScalar
from ragschema.errors import UnreadableDocument

_STRICT = ConfigDict(extra="forbid", strict=True)
#: Raised when parsers or chunking change, so that documents are ingested afresh.
RECIPE_VERSION = 1
_ATX_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_MAX_HEADING_CHARS = 200


@dataclass(frozen=True)
class Heading:
    """A heading within a document's text.

    Attributes:
        offset: of its first character in the text.
        level: 1 is outermost.
    """

    __pydantic_config__ = _STRICT
    offset: Annotated[int, Field(ge=0)]
    level: Annotated[int, Field(ge=1, le=100)]
    title: str


@dataclass(frozen=True)
class ParsedDocument:
    """A document's text, ready for chunking.

    Attributes:
        text: extracted text; every character offset refers to it.
        headings: ascending by offset.
        metadata: what filters may ask for.
        source: where it came from, for people.
        note: something the user should know, such as a guessed encoding.
    """

    __pydantic_config__ = _STRICT
    document_id: Annotated[str, Field(min_length=1, max_length=1024)]
    title: str
    text: str
    headings: tuple[Heading, ...] = ()
    metadata: Mapping[str, FilterScalar] = field(default_factory=dict)
    source: str = ""
    note: str | None = None

    def content_hash(self) -> str:
        """32 hex characters that change when anything a search could show changes."""
        body = {
            "recipe": RECIPE_VERSION,
            "title": self.title,
            "text": self.text,
            "headings": [asdict(h) for h in self.headings],
            "metadata": dict(self.metadata),
        }
        raw = json.dumps(body, sort_keys=True).encode("ascii")
        return hashlib.blake2b(raw, digest_size=16).hexdigest()


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """The ``#`` headings of Markdown text; those inside code fences are none."""
    found: list[Heading] = []
    offset = 0
    fence: str | None = None
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and fence in (None, mark.group(1)):
            fence = None if fence else mark.group(1)
        heading = None if fence else _ATX_HEADING.match(line.rstrip("\r\n"))
        if heading and heading.group(2):
            title = heading.group(2)[:_MAX_HEADING_CHARS]
            found.append(Heading(offset, len(heading.group(1)), title))
        offset += len(line)
    return tuple(found)


def cleaned(document: ParsedDocument) -> ParsedDocument:
    """Replaces what cannot be stored as UTF-8 text: lone surrogates and NULs.

    Every character stays one character, so offsets remain right.
    """
    return replace(
        document,
        document_id=_storable(document.document_id),
        title=_storable(document.title),
        text=_storable(document.text),
        headings=tuple(replace(h, title=_storable(h.title)) for h in document.headings),
        metadata={
            _storable(k): _storable(v) if isinstance(v, str) else v
            for k, v in document.metadata.items()
        },
    )


def _storable(text: str) -> str:
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


def documents_to_json(documents: Iterable[ParsedDocument]) -> str:
    """A JSON list, as the parsing process writes it."""
    return json.dumps([asdict(d) for d in documents])


def documents_from_json(text: str | bytes) -> tuple[ParsedDocument, ...]:
    """Reads what ``documents_to_json`` wrote; the writer may have gone wrong.

    Raises:
        UnreadableDocument: it is not such a list.
    """
    try:
        return TypeAdapter(tuple[ParsedDocument, ...]).validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UnreadableDocument(f"its parser gave no valid result: {problem}") from error


def write_documents_file(path: Path, documents: Iterable[ParsedDocument]) -> None:
    """Writes the JSON lines that ``IngestSpec.documents_file`` names."""
    with path.open("w", encoding="utf-8") as out:
        for document in documents:
            out.write(json.dumps(asdict(cleaned(document))) + "\n")


def read_documents_file(path: Path) -> Iterator[ParsedDocument]:
    """Reads them back, one at a time. Lines without ``headings`` are taken as Markdown.

    Raises:
        UnreadableDocument: no such file, or a line that is no document, naming it.
    """
    adapter = TypeAdapter(ParsedDocument)
    try:
        lines = path.open("r", encoding="utf-8")
    except OSError as error:
        raise UnreadableDocument(
            f"cannot read {path}: {error.strerror}", field="documents_file"
        ) from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                document = adapter.validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise UnreadableDocument(f"line {number}: {problem}", field="documents") from error
            if '"headings"' not in line:
                document = replace(document, headings=markdown_headings(document.text))
            yield cleaned(document)
