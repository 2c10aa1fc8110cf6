"""First half of a run: which documents are new, and their chunks, in a draft on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator.collections.commit import utc_now
from coordinator.collections.snapshot import Snapshot
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsWriter
from coordinator.ingest.chunking import chunk_document
from coordinator.ingest.document import RECIPE_VERSION, ParsedDocument, read_documents_file
from coordinator.ingest.embedder import EmbeddingNode
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.sandbox import ParseWorker
from coordinator.ingest.scan import Scan, SourceFile
from coordinator.ingest.spec import Skipped
from ragschema.errors import InvalidInput
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import I64

Progress = Callable[[str, int, int], None]

_BATCH_DOCUMENTS = 64
_BATCH_CHARS = 400_000
_MAX_NOTES = 20


@dataclass(frozen=True)
class Origin:
    """Where a document was read from; all None for uploads."""

    root: str | None = None
    path: str | None = None
    hash: str | None = None
    documents: int = 1


@dataclass
class Gathered:
    """What a run will change.

    Attributes:
        removed: rows of live documents that go, first row -> count.
        removed_documents: how many documents those are.
        deleted: of them, documents that are gone from their source.
        rows: chunks in the draft.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    rows: int = 0
    removed_documents: int = 0
    removed: dict[int, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def remove(self, document: StoredDocument) -> None:
        """Marks a live document's rows."""
        if document.first_row not in self.removed:
            self.removed[document.first_row] = document.chunks
            self.removed_documents += 1

    def removed_rows(self) -> I64:
        """Every removed row, int64 ascending."""
        ranges = [np.arange(first, first + n) for first, n in sorted(self.removed.items())]
        return np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)

    def note(self, text: str) -> None:
        """Keeps the first few; a folder may hold thousands of odd files."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(text)


class Gatherer:
    """Reads sources, compares them with a snapshot, and drafts what changed.

    Args:
        snapshot: the committed state; None for a new collection.
        draft: receives new and changed documents, rows numbered from 0.

    Attributes:
        drafted: documents in the draft.
    """

    def __init__(
        self,
        snapshot: Snapshot | None,
        node: EmbeddingNode,
        chunking: ChunkingConfig,
        draft: TextsWriter,
        limits: ParseLimits,
    ) -> None:
        self.result = Gathered()
        self._snapshot = snapshot
        self._node = node
        self._chunking = chunking
        self._draft = draft
        self._limits = limits
        self._ids: set[str] = set()
        self._batch: list[tuple[ParsedDocument, Origin]] = []
        self._now = utc_now()
        self.drafted = 0

    async def take_files(self, scan: Scan, progress: Progress, prune: bool) -> None:
        """Reads files one after another; an unreadable one is skipped with its reason."""
        self.result.skipped.extend(scan.skipped)
        total = len(scan.files)
        async with ParseWorker(self._limits) as worker:
            for done, file in enumerate(scan.files):
                progress("read", done, total)
                try:
                    await self._take_file(file, worker, prune)
                except (InvalidInput, OSError) as error:
                    # Only the file is at fault; a failing disk shows elsewhere too.
                    reason = str(error) if isinstance(error, InvalidInput) else error.strerror
                    self.result.skipped.append(Skipped(str(file.path), reason or "unreadable"))
        await self._flush()
        progress("read", total, total)
        if prune:
            self._prune(scan)

    async def take_documents_file(self, path: Path, progress: Progress) -> None:
        """Takes documents that were parsed before, such as an upload's."""
        done = 0
        for document in read_documents_file(path):
            progress("read", done, done + 1)
            await self._take_document(document, Origin())
            done += 1
        await self._flush()
        progress("read", done, done)

    async def _take_file(self, file: SourceFile, worker: ParseWorker, prune: bool) -> None:
        origin = str(file.path)
        digest = _file_digest(file.path, self._limits.max_file_bytes)
        known = self._snapshot.documents_from(origin) if self._snapshot else []
        if digest is not None and self._all_current(known, digest):
            self.result.unchanged += len(known)
            self._ids.update(d.document_id for d in known)
            return
        documents = await worker.parse(file.path, file.name)
        root = str(file.root) if file.root else None
        for document in documents:
            if document.note:
                self.result.note(f"{file.path} {document.note}")
            await self._take_document(document, Origin(root, origin, digest, len(documents)))
        if prune:
            produced = {d.document_id for d in documents}
            for gone in known:
                if gone.document_id not in produced:
                    self._delete(gone)

    def _all_current(self, known: Sequence[StoredDocument], digest: str) -> bool:
        return bool(known) and all(
            d.origin_hash == digest
            and d.origin_documents == len(known)
            and d.chunking == self._chunking
            for d in known
        )

    async def _take_document(self, document: ParsedDocument, origin: Origin) -> None:
        name = document.document_id
        shown = origin.path if origin.path and origin.documents == 1 else name
        if not document.text.strip():
            self.result.skipped.append(Skipped(shown, "holds no text"))
            return
        if name in self._ids:
            reason = f"another document of this run has the id {name!r}"
            self.result.skipped.append(Skipped(shown, reason))
            return
        self._ids.add(name)
        old = self._snapshot.stored_document(name) if self._snapshot else None
        if old and old.content_hash == document.content_hash() and old.chunking == self._chunking:
            self.result.unchanged += 1
            return
        if old:
            self.result.updated += 1
            self.result.remove(old)
        else:
            self.result.added += 1
        self._batch.append((document, origin))
        size = sum(len(d.text) for d, _ in self._batch)
        if len(self._batch) >= _BATCH_DOCUMENTS or size >= _BATCH_CHARS:
            await self._flush()

    async def _flush(self) -> None:
        """Tokenizes and cuts the waiting documents together."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        borders = await self._node.tokenize([document.text for document, _ in batch])
        for (document, origin), offsets in zip(batch, borders, strict=True):
            chunks = chunk_document(document, offsets, self._chunking)
            first = self.result.rows
            stored = self._stored(document, origin, first, len(chunks))
            self._draft.add(
                stored,
                (
                    StoredChunk(
                        first + i,
                        stored.doc,
                        c.chunk_id,
                        c.start,
                        c.end,
                        c.tokens,
                        c.headings,
                        c.text,
                    )
                    for i, c in enumerate(chunks)
                ),
            )
            self.result.rows += len(chunks)
            self.drafted += 1

    def _stored(
        self, document: ParsedDocument, origin: Origin, first_row: int, chunks: int
    ) -> StoredDocument:
        return StoredDocument(
            doc=self.drafted,
            document_id=document.document_id,
            title=document.title,
            source=document.source,
            root=origin.root,
            origin=origin.path,
            origin_hash=origin.hash,
            origin_documents=origin.documents,
            content_hash=document.content_hash(),
            chunking=self._chunking,
            bytes=len(document.text.encode("utf-8")),
            ingested_at=self._now,
            metadata=document.metadata,
            first_row=first_row,
            chunks=chunks,
        )

    def _prune(self, scan: Scan) -> None:
        """Deletes documents of listed folders whose file is no longer there."""
        if self._snapshot is None:
            return
        present = {str(file.path) for file in scan.files}
        present.update(skipped.path for skipped in scan.skipped)
        blocked = tuple(f"{folder}/" for folder in scan.blocked)
        for root in scan.roots:
            for document in self._snapshot.documents_below(str(root)):
                origin = document.origin or ""
                if origin not in present and not origin.startswith(blocked):
                    self._delete(document)

    def _delete(self, document: StoredDocument) -> None:
        if document.document_id in self._ids or document.first_row in self.result.removed:
            return
        self.result.remove(document)
        self.result.deleted += 1


def _file_digest(path: Path, max_bytes: int) -> str | None:
    """Of the bytes; None for a file that is too large to be read anyway."""
    if path.stat().st_size > max_bytes:
        return None
    digest = hashlib.blake2b(f"recipe {RECIPE_VERSION}\n".encode("ascii"), digest_size=16)
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
