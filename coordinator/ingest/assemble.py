"""Second half of a run: a segment's files, then the manifest that makes them current."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coordinator.collections.commit import next_number, utc_now
from coordinator.collections.snapshot import Snapshot
from coordinator.collections.texts import StoredDocument, TextsFile, TextsWriter
from coordinator.collections.tombstones import Mask, write_tombstones
from coordinator.ingest.builder import (
    BuildRequest,
    BuildResult,
    TrainRequest,
    run_builder,
)
from coordinator.ingest.node_command import Progress
from coordinator.ingest.plan import REFINE_UP_TO_ROWS, Plan, Route, Wish
from coordinator.ingest.vectors import copy_live_vectors, create_vectors
from ragschema.errors import InternalError
from ragschema.storage.manifest import (
    IndexRef,
    Manifest,
    SegmentRef,
    file_ref,
    sync_directory,
)
from ragschema.types import F32, I64

_SEED = 0


@dataclass(frozen=True)
class Draft:
    """New documents of a run: texts and float32 [rows, dim] vectors, rows from 0."""

    texts: TextsFile
    vectors_path: Path
    vectors: F32
    documents: int

    @property
    def rows(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Change:
    """What a run does to a collection.

    Attributes:
        removed: rows of live documents that go, int64.
        removed_documents: how many documents those are.
    """

    plan: Plan
    draft: Draft
    removed: I64
    removed_documents: int
    wish: Wish


class Assembler:
    """Builds the next generation of one collection; the caller holds the writer lock.

    Args:
        base: the committed manifest, or that of an empty collection.
        snapshot: its opened state; None for a new collection.
        workspace: folder for files that are not part of the collection.
    """

    def __init__(
        self,
        directory: Path,
        base: Manifest,
        snapshot: Snapshot | None,
        workspace: Path,
        progress: Progress,
    ) -> None:
        self._directory = directory
        self._base = base
        self._snapshot = snapshot
        self._workspace = workspace
        self._progress = progress

    async def next_manifest(self, change: Change) -> Manifest:
        """Writes every file of the next generation and names them; commits nothing."""
        base, draft = self._base, change.draft
        manifest = replace(
            base,
            generation=base.generation + 1,
            created_at=utc_now(),
            live_rows=base.live_rows - len(change.removed) + draft.rows,
            live_documents=base.live_documents - change.removed_documents + draft.documents,
        )
        if change.plan.route is Route.REWRITE:
            return await self._rewritten(manifest, change)
        if change.plan.route is Route.APPEND:
            segment, _ = await self._segment(change, draft.vectors_path, base.next_row_id, None)
            manifest = replace(
                manifest,
                segments=(*base.segments, segment),
                next_row_id=base.next_row_id + draft.rows,
            )
        known = self._snapshot.deleted if self._snapshot else np.empty(0, dtype=np.int64)
        rows = np.union1d(known, change.removed)
        return replace(
            manifest, tombstones=write_tombstones(self._directory, manifest.generation, rows)
        )

    async def _rewritten(self, manifest: Manifest, change: Change) -> Manifest:
        manifest = replace(
            manifest, tombstones=None, index=None, segments=(), next_row_id=manifest.live_rows
        )
        if manifest.live_rows == 0:
            return manifest
        gone = np.zeros(self._base.next_row_id, dtype=np.bool_)
        gone[change.removed] = True
        path = self._all_vectors(manifest.live_rows, change.draft, gone)
        segment, index = await self._segment(change, path, 0, gone)
        return replace(manifest, segments=(segment,), index=index)

    def _all_vectors(self, rows: int, draft: Draft, gone: Mask) -> Path:
        if self._snapshot is None or self._base.live_rows == 0:
            return draft.vectors_path
        path = self._workspace / "all.npy"
        out = create_vectors(path, rows, self._base.dim)
        kept = copy_live_vectors(self._snapshot, self._directory, gone, out)
        if kept + draft.rows != rows:
            raise InternalError(f"{kept} stored and {draft.rows} new vectors, expected {rows}")
        out[kept:] = draft.vectors
        out.flush()
        return path

    async def _segment(
        self, change: Change, vectors: Path, row_start: int, gone: Mask | None
    ) -> tuple[SegmentRef, IndexRef | None]:
        """Builds one segment; ``gone`` not None: it also takes over the old rows that stay."""
        number = next_number(self._directory)
        segment_id = f"seg-{number:06d}"
        folder = self._directory / "segments" / segment_id
        # Making the folder first reserves the number, for the index's name too:
        # a builder that outlived its run can then never write into ours.
        folder.mkdir(parents=True)
        rows = len(np.load(vectors, mmap_mode="r", allow_pickle=False))
        spec_path = self._workspace / "build.json"
        self._request(change, number, row_start, vectors, rows).write(spec_path)
        built = await run_builder(spec_path, self._progress)
        self._progress("texts", 0, rows)
        texts = folder / "texts.sqlite"
        self._write_texts(texts, row_start, change.draft, gone)
        for written in (folder, folder.parent, self._directory / "index", self._directory):
            if written.is_dir():
                sync_directory(written)
        self._progress("texts", rows, rows)
        segment = SegmentRef(
            id=segment_id,
            row_start=row_start,
            row_count=rows,
            shards=tuple(file_ref(self._directory, self._directory / p) for p in built.shards),
            texts=file_ref(self._directory, texts),
        )
        return segment, self._index_ref(built)

    def _request(
        self, change: Change, number: int, row_start: int, vectors: Path, rows: int
    ) -> BuildRequest:
        base, wish = self._base, change.wish
        existing: str | None = None
        train: TrainRequest | None = None
        refine, residual = False, True
        if change.plan.train:
            refine = rows <= REFINE_UP_TO_ROWS
            train = TrainRequest(f"idx-{number:06d}", wish.nlist, wish.m, _SEED, refine)
        elif not change.plan.exact:
            assert base.index is not None, "only trained collections append codes"
            existing = base.index.file.path
            refine = base.index.refine_factor is not None
            residual = base.index.residual
        return BuildRequest(
            collection_dir=self._directory,
            segment_id=f"seg-{number:06d}",
            row_start=row_start,
            vectors=vectors,
            metric=base.metric,
            num_shards=base.num_shards,
            existing=existing,
            residual=residual,
            train=train,
            refine=refine,
        )

    def _index_ref(self, built: BuildResult) -> IndexRef | None:
        if built.index is None:
            return None
        return IndexRef(
            file=file_ref(self._directory, self._directory / built.index.path),
            nlist=built.index.nlist,
            m=built.index.m,
            nprobe=built.index.nprobe,
            refine_factor=built.index.refine_factor,
            residual=built.index.residual,
            rotated=built.index.rotated,
            curve=built.index.curve,
        )

    def _write_texts(self, path: Path, row_start: int, draft: Draft, gone: Mask | None) -> None:
        writer = TextsWriter(path)
        copier = _Copier(writer, row_start)
        try:
            if gone is not None and self._snapshot is not None:
                for segment in self._snapshot.segments:
                    for document in self._snapshot.live_documents(segment):
                        if not gone[document.first_row]:
                            copier.copy(segment.texts, document)
            for document in draft.texts.documents_in_order("first_row"):
                copier.copy(draft.texts, document)
        except BaseException:
            writer.abandon()
            raise
        writer.finish()


class _Copier:
    """Copies documents into a new file, numbering rows and documents afresh."""

    def __init__(self, writer: TextsWriter, first_row: int) -> None:
        self._writer = writer
        self._row = first_row
        self._doc = 0

    def copy(self, source: TextsFile, document: StoredDocument) -> None:
        chunks = source.chunk_range(document.first_row, document.chunks)
        shift = self._row - document.first_row
        self._writer.add(
            replace(document, doc=self._doc, first_row=self._row),
            (replace(c, row_id=c.row_id + shift, doc=self._doc) for c in chunks),
        )
        self._row += document.chunks
        self._doc += 1
