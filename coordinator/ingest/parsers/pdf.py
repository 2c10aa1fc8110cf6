"""PDF: the text of each page, headings from the outline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pypdf
from pypdf.errors import DependencyError, PyPdfError

from coordinator.ingest.document import Heading, ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.types import FilterScalar
from ragschema.errors import PayloadTooLarge, RagrigError, UnreadableDocument

_MAX_OUTLINE_LEVEL = 16
_MAX_OUTLINE_ENTRIES = 10_000


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """One document, titled by the PDF's own title.

    Raises:
        UnreadableDocument: damaged, encrypted, or pictures without text.
        PayloadTooLarge: too much text.
    """
    try:
        return (_parse(path, name, limits),)
    except RagrigError:
        raise
    except RecursionError as error:
        raise UnreadableDocument("is damaged: its objects are nested too deeply") from error
    except DependencyError as error:
        raise UnreadableDocument(f"is encrypted: {error}") from error
    # The library meets arbitrary bytes; what it trips over is the file's fault.
    except (PyPdfError, ArithmeticError, LookupError, TypeError) as error:
        raise UnreadableDocument(f"is damaged: {error}") from error
    except (ValueError, AttributeError, OSError, AssertionError) as error:
        raise UnreadableDocument(f"is damaged: {error}") from error


def _parse(path: Path, name: str, limits: ParseLimits) -> ParsedDocument:
    reader = pypdf.PdfReader(path)
    # Many files carry only an owner's password; those open with an empty one.
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableDocument("is encrypted", hint="save it without a password")
    pages: list[str] = []
    starts: list[int] = []
    length = 0
    for page in reader.pages:
        starts.append(length)
        pages.append(page.extract_text().strip())
        length += len(pages[-1]) + 2
        if length > limits.max_text_chars:
            raise PayloadTooLarge(
                f"holds more than {limits.max_text_chars} characters of text", hint="split it"
            )
    if not any(pages):
        raise UnreadableDocument(
            f"holds no text on its {len(pages)} pages",
            hint="if its pages are pictures, run text recognition on them first",
        )
    info = reader.metadata
    title = str(info.title).strip() if info and info.title else ""
    metadata: dict[str, FilterScalar] = {"pages": len(pages)}
    if info and info.author:
        metadata["author"] = str(info.author)
    return ParsedDocument(
        document_id=name,
        title=title or PurePath(name).name,
        text="\n\n".join(pages),
        headings=_headings(reader, pages, starts),
        metadata=metadata,
        source=str(path),
    )


def _headings(reader: pypdf.PdfReader, pages: list[str], starts: list[int]) -> tuple[Heading, ...]:
    found: list[Heading] = []
    for level, entry in _entries(reader.outline, 1):
        number = reader.get_destination_page_number(entry)
        title = " ".join(str(entry.title or "").split())[:200]
        if number is None or not 0 <= number < len(pages) or not title:
            continue
        within = pages[number].find(title)
        found.append(Heading(starts[number] + max(0, within), level, title))
        if len(found) >= _MAX_OUTLINE_ENTRIES:
            break
    return tuple(sorted(found, key=lambda h: h.offset))


def _entries(outline: Any, level: int) -> Iterator[tuple[int, Any]]:
    """The library nests a list after the entry whose children it holds."""
    for entry in outline:
        if not isinstance(entry, list):
            yield level, entry
        elif level < _MAX_OUTLINE_LEVEL:
            yield from _entries(entry, level + 1)
