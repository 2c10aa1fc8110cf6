"""Vectors that are paid for but not committed, so that a killed run can go on."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import F32

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS vectors (
    document TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    vector BLOB NOT NULL,       -- float32 little-endian
    PRIMARY KEY (document, ordinal)
) WITHOUT ROWID;
"""


def document_key(content_hash: str, chunking: ChunkingConfig, fingerprint: str) -> str:
    """Names a document's vectors: the same text, cut the same way, by the same model."""
    body = f"{content_hash}/{chunking.tokens}/{chunking.overlap}/{fingerprint}"
    return hashlib.blake2b(body.encode("utf-8"), digest_size=16).hexdigest()


class VectorStaging:
    """A table of embedded chunks by document key and position within the document."""

    def __init__(self, path: Path, dim: int) -> None:
        self._dim = dim
        try:
            self._connection = self._opened(path)
        except sqlite3.DatabaseError:
            # Only work is lost with it, never data.
            for leftover in path.parent.glob(f"{path.name}*"):
                leftover.unlink()
            self._connection = self._opened(path)

    @staticmethod
    def _opened(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
            connection.execute("SELECT count(*) FROM (SELECT 1 FROM vectors LIMIT 1)").fetchone()
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    def get(self, document: str, ordinal: int) -> F32 | None:
        """float32 [dim], or None when it was not embedded yet."""
        row = self._connection.execute(
            "SELECT vector FROM vectors WHERE document = ? AND ordinal = ?", (document, ordinal)
        ).fetchone()
        if row is None or len(row[0]) != 4 * self._dim:
            return None
        return np.frombuffer(row[0], dtype="<f4")

    def put(self, keys: Sequence[tuple[str, int]], vectors: Iterable[F32]) -> None:
        """Stores a batch; it survives the death of this process from here on."""
        rows = [
            (document, ordinal, np.ascontiguousarray(vector, dtype="<f4").tobytes())
            for (document, ordinal), vector in zip(keys, vectors, strict=True)
        ]
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO vectors (document, ordinal, vector) VALUES (?, ?, ?)", rows
        )
        self._connection.execute("COMMIT")
