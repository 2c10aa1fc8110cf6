"""JSON and JSON lines: records with a ``text`` field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NoReturn

from coordinator.ingest.document import ParsedDocument, markdown_headings
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers.decode import read_text
from coordinator.types import FilterScalar
from ragschema.errors import PayloadTooLarge, UnreadableDocument

_TEXT, _ID, _TITLE, _METADATA = "text", "id", "title", "metadata"
_HINT = 'give every record a string field "text"'
_MAX_METADATA_FIELDS = 64
_MAX_ID_CHARS = 512


def parse(path: Path, name: str, limits: ParseLimits) -> tuple[ParsedDocument, ...]:
    """A document per record; ``id`` and ``title`` are used, other scalars become metadata,
    and so do those of an object ``metadata``.

    A document's id is the record's ``id``, after ``<name>#`` when the file is one
    of a folder; a record without one is ``<name>#<number>``, or just ``<name>``
    when it is the whole file.

    Raises:
        UnreadableDocument: naming the line or record at fault.
        PayloadTooLarge: too many records.
    """
    decoded = read_text(path)
    lines = PurePath(name).suffix.lower() == ".jsonl"
    records = _from_lines(decoded.text) if lines else _from_json(decoded.text)
    documents: list[ParsedDocument] = []
    seen: set[str] = set()
    for where, record in records:
        if len(documents) >= limits.max_documents:
            raise PayloadTooLarge(f"holds more than {limits.max_documents} documents")
        document = _document(where, record, name, str(path), decoded.note)
        if document.document_id in seen:
            raise UnreadableDocument(f"{where}: the id {record.get(_ID)!r} is used twice")
        seen.add(document.document_id)
        documents.append(document)
    return tuple(documents)


def _from_lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Only newlines part records: JSON strings may hold other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _object(line, f"line {number}")


def _from_json(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    value = _loads(text, "the file")
    if isinstance(value, dict):
        yield "", value
        return
    if not isinstance(value, list):
        raise UnreadableDocument(f"holds a {type(value).__name__}, not records", hint=_HINT)
    for number, record in enumerate(value, start=1):
        if not isinstance(record, dict):
            raise UnreadableDocument(f"record {number} is not an object", hint=_HINT)
        yield f"record {number}", record


def _object(text: str, where: str) -> dict[str, Any]:
    value = _loads(text, where)
    if not isinstance(value, dict):
        raise UnreadableDocument(f"{where} is not an object", hint=_HINT)
    return value


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise UnreadableDocument(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise UnreadableDocument(f"{where} is not JSON: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _document(
    where: str, record: dict[str, Any], name: str, source: str, note: str | None
) -> ParsedDocument:
    prefix = f"{where}: " if where else ""
    text = record.get(_TEXT)
    if not isinstance(text, str):
        raise UnreadableDocument(f"{prefix}has no text", hint=_HINT)
    title = record.get(_TITLE)
    return ParsedDocument(
        document_id=_document_id(where, prefix, record.get(_ID), name),
        title=title if isinstance(title, str) and title else PurePath(name).name,
        text=text,
        headings=markdown_headings(text),
        metadata=_metadata(prefix, record),
        source=source,
        note=note,
    )


def _document_id(where: str, prefix: str, given: object, name: str) -> str:
    if given is None:
        return f"{name}#{where.split()[-1]}" if where else name
    if isinstance(given, bool) or not isinstance(given, (str, int)) or not str(given):
        raise UnreadableDocument(f"{prefix}the id {given!r} is neither text nor a whole number")
    if len(str(given)) > _MAX_ID_CHARS:
        raise UnreadableDocument(f"{prefix}the id is longer than {_MAX_ID_CHARS} characters")
    # In a folder, two files may use the same ids; a file on its own speaks for itself.
    return f"{name}#{given}" if "/" in name else str(given)


def _metadata(prefix: str, record: dict[str, Any]) -> dict[str, FilterScalar]:
    """Scalars of the record, and of an object ``metadata``, as the REST body has it."""
    metadata: dict[str, FilterScalar] = {}
    nested = record.get(_METADATA)
    inner = nested if isinstance(nested, dict) else {}
    for key, value in (*inner.items(), *record.items()):
        if key in (_TEXT, _ID, _TITLE) or not isinstance(value, (str, int, float, bool)):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise UnreadableDocument(f"{prefix}{key} is beyond the range of numbers")
        metadata[key] = value
    if len(metadata) > _MAX_METADATA_FIELDS:
        raise UnreadableDocument(
            f"{prefix}has {len(metadata)} metadata fields, the limit is {_MAX_METADATA_FIELDS}"
        )
    return metadata
