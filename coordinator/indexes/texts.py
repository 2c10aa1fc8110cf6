"""Texts of an imported index: one line per row, as plain text or JSON."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from coordinator.collections.commit import utc_now
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsWriter
from coordinator.ingest.chunking import chunk_id
from coordinator.ingest.document import ParsedDocument, cleaned
from coordinator.types import FilterScalar
from ragschema.errors import InvalidInput, NotFound
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import I64

#: Where the faiss id of a row is kept, whatever its document is called.
FAISS_ID = "faiss_id"
_JSON_ENDINGS = (".jsonl", ".ndjson")
#: No tokenizer is known; English takes about this many characters per token.
_CHARS_PER_TOKEN = 4
_ROWS_PER_REPORT = 4096


@dataclass(frozen=True)
class _Line:
    """One line of JSON; ``id`` None: the faiss id names the document."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    text: str
    id: Annotated[str, Field(min_length=1, max_length=1024)] | int | None = None
    title: str = ""
    metadata: Mapping[str, FilterScalar] = field(default_factory=dict)


def write_texts(path: Path, ids: I64, source: Path | None, progress: Callable[[int], None]) -> None:
    """Writes a segment's texts: each row is a document of one chunk.

    Args:
        ids: int64 [rows], the faiss id of each row.
        source: one line per row; None: documents bear ids and no text.
        progress: called with the rows written, now and then.

    Raises:
        NotFound: there is no such file.
        InvalidInput: a line is wrong, or there are too few or too many, naming it.
    """
    lines = itertools.repeat(_Line("")) if source is None else _lines(source)
    writer = TextsWriter(path)
    try:
        _write_rows(writer, ids, lines, source, progress)
    except BaseException:
        writer.abandon()
        raise
    writer.finish()


def _write_rows(
    writer: TextsWriter,
    ids: I64,
    lines: Iterator[_Line],
    source: Path | None,
    progress: Callable[[int], None],
) -> None:
    now = utc_now()
    for row in range(len(ids)):
        if row % _ROWS_PER_REPORT == 0:
            progress(row)
        line = next(lines, None)
        if line is None:
            raise _miscounted(f"{source} has {row} lines for {len(ids)} vectors")
        document = _document(line, int(ids[row]), row + 1)
        try:
            writer.add(*_stored(document, row, now))
        except sqlite3.IntegrityError as error:
            raise InvalidInput(
                f"{source}, line {row + 1}: an earlier line has the id {document.document_id!r}",
                field="texts",
                hint="ids name documents; give every line its own",
            ) from error
    if source is not None and next(lines, None) is not None:
        raise _miscounted(f"{source} has more than {len(ids)} lines, one per vector")


def _miscounted(what: str) -> InvalidInput:
    return InvalidInput(what, field="texts", hint="give one line per vector, by ascending id")


def _lines(source: Path) -> Iterator[_Line]:
    adapter = TypeAdapter(_Line) if source.suffix.lower() in _JSON_ENDINGS else None
    try:
        opened = source.open("r", encoding="utf-8", newline="\n")
    except OSError as error:
        raise NotFound(f"cannot read {source}: {error.strerror}", field="texts") from error
    with opened:
        number = 1
        try:
            for raw in opened:
                text = raw.rstrip("\r\n")
                yield _Line(text) if adapter is None else adapter.validate_json(text)
                number += 1
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise InvalidInput(
                f"{source}, line {number}: {where + ': ' if where else ''}{problem['msg']}",
                field="texts",
                hint='lines are {"text": ..., "id": ..., "title": ..., "metadata": {...}}',
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{source}, line {number}: not UTF-8", field="texts") from error


def _document(line: _Line, faiss_id: int, number: int) -> ParsedDocument:
    if FAISS_ID in line.metadata:
        raise InvalidInput(
            f"line {number} has metadata {FAISS_ID!r}",
            field="texts",
            hint="that key is set by the import; leave it out",
        )
    name = str(faiss_id if line.id is None else line.id)
    return cleaned(
        ParsedDocument(
            document_id=name,
            title=line.title or name,
            text=line.text,
            metadata={**line.metadata, FAISS_ID: faiss_id},
        )
    )


def _stored(
    document: ParsedDocument, row: int, now: str
) -> tuple[StoredDocument, tuple[StoredChunk]]:
    text = document.text
    stored = StoredDocument(
        doc=row,
        document_id=document.document_id,
        title=document.title,
        source="",
        root=None,
        origin=None,
        origin_hash=None,
        origin_documents=1,
        content_hash=document.content_hash(),
        chunking=ChunkingConfig(),
        bytes=len(text.encode("utf-8")),
        ingested_at=now,
        metadata=document.metadata,
        first_row=row,
        chunks=1,
    )
    tokens = -(-len(text) // _CHARS_PER_TOKEN)
    name = chunk_id(document.document_id, text, 0)
    return stored, (StoredChunk(row, row, name, 0, len(text), tokens, (), text),)


def read_ids(path: Path) -> I64:
    """The faiss id of each row, as the import left it."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
