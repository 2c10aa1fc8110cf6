"""The texts of one segment: an SQLite file, written once, then read-only.

A document's chunks have consecutive row ids, so a document is a range of rows.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coordinator.types import FilterScalar
from ragschema.errors import CorruptData
from ragschema.storage.manifest import ChunkingConfig

SCHEMA_VERSION = 1

_SCHEMA = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE documents (
    doc INTEGER PRIMARY KEY,
    document_id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    root TEXT,                  -- folder whose ingestion found it, NULL otherwise
    origin TEXT,                -- file it was read from, NULL for uploads
    origin_hash TEXT,           -- of that file's bytes
    origin_documents INTEGER NOT NULL,  -- how many documents that file held
    content_hash TEXT NOT NULL,
    chunk_tokens INTEGER NOT NULL,
    chunk_overlap INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    ingested_at TEXT NOT NULL,
    metadata TEXT NOT NULL,     -- JSON object of scalars
    first_row INTEGER NOT NULL,
    chunks INTEGER NOT NULL
);
CREATE INDEX documents_by_origin ON documents (origin) WHERE origin IS NOT NULL;
CREATE INDEX documents_by_root ON documents (root) WHERE root IS NOT NULL;
CREATE TABLE chunks (
    row_id INTEGER PRIMARY KEY,
    doc INTEGER NOT NULL,
    chunk_id TEXT NOT NULL,
    char_start INTEGER NOT NULL,
    char_end INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    headings TEXT NOT NULL,     -- JSON list, outermost first
    text TEXT NOT NULL
);
CREATE TABLE metadata (
    key TEXT NOT NULL,
    doc INTEGER NOT NULL,
    value TEXT NOT NULL,        -- JSON scalar, so that types survive
    PRIMARY KEY (key, doc)
) WITHOUT ROWID;
"""
_DOCUMENT_COLUMNS = (
    "doc, document_id, title, source, root, origin, origin_hash, origin_documents,"
    " content_hash, chunk_tokens, chunk_overlap, bytes, ingested_at, metadata, first_row, chunks"
)
_CHUNK_COLUMNS = "row_id, doc, chunk_id, char_start, char_end, tokens, headings, text"


@dataclass(frozen=True)
class StoredDocument:
    """A document of a segment; its rows are ``first_row .. first_row + chunks - 1``."""

    doc: int
    document_id: str
    title: str
    source: str
    root: str | None
    origin: str | None
    origin_hash: str | None
    origin_documents: int
    content_hash: str
    chunking: ChunkingConfig
    bytes: int
    ingested_at: str
    metadata: Mapping[str, FilterScalar]
    first_row: int
    chunks: int


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as stored; ``doc`` refers to its document within the segment."""

    row_id: int
    doc: int
    chunk_id: str
    start: int
    end: int
    tokens: int
    headings: tuple[str, ...]
    text: str


_PLAIN = (
    "doc",
    "document_id",
    "title",
    "source",
    "root",
    "origin",
    "origin_hash",
    "origin_documents",
    "content_hash",
)


def _document(row: tuple[Any, ...]) -> StoredDocument:
    plain = dict(zip(_PLAIN, row[:9], strict=True))
    tokens, overlap, size, ingested_at, metadata, first_row, chunks = row[9:]
    return StoredDocument(
        **plain,
        chunking=ChunkingConfig(tokens, overlap),
        bytes=size,
        ingested_at=ingested_at,
        metadata=json.loads(metadata),
        first_row=first_row,
        chunks=chunks,
    )


def _document_values(d: StoredDocument) -> tuple[Any, ...]:
    plain = (getattr(d, name) for name in _PLAIN)
    metadata = json.dumps(dict(d.metadata), ensure_ascii=False)
    cut = (d.chunking.tokens, d.chunking.overlap)
    return (*plain, *cut, d.bytes, d.ingested_at, metadata, d.first_row, d.chunks)


def _chunk(row: tuple[Any, ...]) -> StoredChunk:
    row_id, doc, chunk_id, start, end, tokens, headings, text = row
    path = tuple(json.loads(headings))
    return StoredChunk(row_id, doc, chunk_id, start, end, tokens, path, text)


def _chunk_values(c: StoredChunk) -> tuple[Any, ...]:
    headings = json.dumps(c.headings, ensure_ascii=False)
    return c.row_id, c.doc, c.chunk_id, c.start, c.end, c.tokens, headings, c.text


class TextsWriter:
    """Fills a new texts file. Rows and documents are numbered by the caller."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.executescript(_SCHEMA)
        self.connection.execute("BEGIN")

    def add(self, document: StoredDocument, chunks: Iterable[StoredChunk]) -> None:
        """Adds a document and its chunks."""
        d = document
        self.connection.execute(
            f"INSERT INTO documents ({_DOCUMENT_COLUMNS}) VALUES ({', '.join('?' * 16)})",  # noqa: S608
            _document_values(document),
        )
        self.connection.executemany(
            "INSERT INTO metadata (key, doc, value) VALUES (?, ?, ?)",
            [(key, d.doc, json.dumps(value)) for key, value in d.metadata.items()],
        )
        self.connection.executemany(
            f"INSERT INTO chunks ({_CHUNK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (_chunk_values(c) for c in chunks),
        )

    def finish(self) -> None:
        """Commits, closes and fsyncs."""
        self.connection.execute("COMMIT")
        self.connection.close()
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def abandon(self) -> None:
        """Closes without keeping anything."""
        self.connection.close()


class TextsFile:
    """A finished texts file. Safe to use from several threads.

    The file is opened once, so it stays readable after it was unlinked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise CorruptData(f"{path}: cannot be opened: {error}", field=str(path)) from error
        if version != SCHEMA_VERSION:
            self._connection.close()
            raise CorruptData(
                f"{path}: has schema version {version}, this release reads {SCHEMA_VERSION}",
                field=str(path),
            )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _fetch(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise CorruptData(f"{self.path}: {error}", field=str(self.path)) from error

    def row_range(self) -> tuple[int, int, int]:
        """First row, last row and number of rows that documents claim; zeros when empty."""
        ((first, last),) = self._fetch("SELECT min(row_id), max(row_id) FROM chunks")
        ((total,),) = self._fetch("SELECT coalesce(sum(chunks), 0) FROM documents")
        return first or 0, last or 0, total

    def chunks(self, row_ids: Sequence[int]) -> list[StoredChunk]:
        """The chunks with these row ids, in no particular order; unknown ones are left out."""
        marks = ", ".join("?" * len(row_ids))
        sql = f"SELECT {_CHUNK_COLUMNS} FROM chunks WHERE row_id IN ({marks})"  # noqa: S608
        return [_chunk(row) for row in self._fetch(sql, row_ids)]

    def chunk_range(self, first_row: int, count: int) -> list[StoredChunk]:
        """Consecutive chunks, ascending."""
        sql = (
            f"SELECT {_CHUNK_COLUMNS} FROM chunks WHERE row_id >= ? AND row_id < ? ORDER BY row_id"  # noqa: S608
        )
        return [_chunk(row) for row in self._fetch(sql, (first_row, first_row + count))]

    def document(self, doc: int) -> StoredDocument:
        """The document with this number within the segment."""
        return self._documents("doc = ?", (doc,))[0]

    def document_named(self, document_id: str) -> StoredDocument | None:
        found = self._documents("document_id = ?", (document_id,))
        return found[0] if found else None

    def documents_from(self, origin: str) -> list[StoredDocument]:
        """What was read from one file."""
        return self._documents("origin = ?", (origin,))

    def documents_below(self, root: str) -> list[StoredDocument]:
        """What a folder's ingestion found."""
        return self._documents("root = ?", (root,))

    def documents_in_order(self, column: str, batch: int = 512) -> Iterator[StoredDocument]:
        """Every document ascending by ``document_id`` or ``first_row``, read in batches."""
        assert column in ("document_id", "first_row")
        last: object = None
        while True:
            where = "1" if last is None else f"{column} > ?"
            values = (batch,) if last is None else (last, batch)
            found = self._documents(f"{where} ORDER BY {column} LIMIT ?", values)
            yield from found
            if len(found) < batch:
                return
            last = getattr(found[-1], column)

    def metadata_values(self, key: str) -> list[tuple[int, int, FilterScalar]]:
        """(first row, rows, value) of every document that has the key."""
        rows = self._fetch(
            "SELECT d.first_row, d.chunks, m.value FROM metadata m"
            " JOIN documents d ON d.doc = m.doc WHERE m.key = ?",
            (key,),
        )
        return [(first, count, json.loads(value)) for first, count, value in rows]

    def document_ids(self) -> list[tuple[int, int, FilterScalar]]:
        """(first row, rows, id) of every document."""
        rows = self._fetch("SELECT first_row, chunks, document_id FROM documents")
        return [(first, count, name) for first, count, name in rows]

    def _documents(self, where: str, values: Sequence[object]) -> list[StoredDocument]:
        sql = f"SELECT {_DOCUMENT_COLUMNS} FROM documents WHERE {where}"  # noqa: S608
        return [_document(row) for row in self._fetch(sql, values)]
