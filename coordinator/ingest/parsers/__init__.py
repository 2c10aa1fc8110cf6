"""Parsers by file extension.

A parser is a function ``(path, name, limits) -> tuple[ParsedDocument, ...]``.
It may trust nothing about the file: it runs in a process of its own with
limits on memory and time, and raises UnreadableDocument or PayloadTooLarge
with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final

from coordinator.ingest.document import ParsedDocument, cleaned
from coordinator.ingest.limits import ParseLimits
from ragschema.errors import PayloadTooLarge, UnreadableDocument

Parser = Callable[[Path, str, ParseLimits], tuple[ParsedDocument, ...]]

_PACKAGE = "coordinator.ingest.parsers"
#: Extension -> module with a function ``parse``; imported when first needed,
#: because the PDF and Word libraries are slow to load.
_MODULES: Final[dict[str, str]] = {
    ".txt": "plain",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".py": "python_source",
    ".json": "records",
    ".jsonl": "records",
}
EXTENSIONS: Final = frozenset(_MODULES)


def supported(name: str) -> bool:
    """Whether a parser exists for a file of that name."""
    return PurePath(name).suffix.lower() in EXTENSIONS


def parse_file(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """Parses a file under the name its documents are to bear.

    Raises:
        UnreadableDocument: no parser, or the parser's reason.
        PayloadTooLarge: it is over a limit.
    """
    module = _MODULES.get(PurePath(name).suffix.lower())
    if module is None:
        raise UnreadableDocument(
            f"{PurePath(name).suffix or 'a file without an extension'} is not a supported type",
            hint=f"supported are {' '.join(sorted(EXTENSIONS))}",
        )
    _check_size(path, limits)
    parse: Parser = importlib.import_module(f"{_PACKAGE}.{module}").parse
    documents = tuple(cleaned(d) for d in parse(path, name, limits))
    _check_result(documents, limits)
    return tuple(d if d.title else replace(d, title=PurePath(name).name) for d in documents)


def _check_size(path: Path, limits: ParseLimits) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableDocument(f"cannot be read: {error.strerror}") from error
    if size == 0:
        raise UnreadableDocument("is empty")
    if size > limits.max_file_bytes:
        raise PayloadTooLarge(
            f"has {size} bytes, the limit is {limits.max_file_bytes}", hint="split it"
        )


def _check_result(documents: tuple[ParsedDocument, ...], limits: ParseLimits) -> None:
    if len(documents) > limits.max_documents:
        raise PayloadTooLarge(
            f"holds {len(documents)} documents, the limit is {limits.max_documents}"
        )
    size = sum(len(d.text) for d in documents)
    if size > limits.max_text_chars:
        raise PayloadTooLarge(
            f"holds {size} characters of text, the limit is {limits.max_text_chars}",
            hint="split it",
        )
    if not any(d.text.strip() for d in documents):
        raise UnreadableDocument("holds no text")
