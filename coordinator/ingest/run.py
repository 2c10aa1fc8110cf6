"""One ingestion, from its sources to a committed snapshot.

Order of work: lock, open and compare, parse and cut into a draft, embed, build
a segment, commit. Nothing before the commit touches the committed state; what
was embedded stays staged, so a run after a killed one continues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from coordinator.collections.commit import commit, utc_now
from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import (
    CollectionSpec,
    CollectionStore,
    empty_manifest,
    storage_error,
)
from coordinator.collections.texts import TextsFile, TextsWriter
from coordinator.ingest.assemble import Assembler, Change, Draft
from coordinator.ingest.checks import (
    check_chunking_fits,
    check_collection_fits,
    check_wish,
    note_about_index,
)
from coordinator.ingest.embedder import EmbeddingNode
from coordinator.ingest.gather import Gathered, Gatherer
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.node_command import Progress
from coordinator.ingest.plan import Route, Wish, choose
from coordinator.ingest.scan import Scan, scan_sources
from coordinator.ingest.spec import IngestSpec, IngestSummary
from coordinator.ingest.staging import VectorStaging
from coordinator.ingest.vectors import create_vectors, embed_draft
from ragschema.errors import NotFound, Unavailable
from ragschema.storage.manifest import ChunkingConfig, EmbedderRef, Manifest
from ragschema.types import Metric, ModelInfo

log = logging.getLogger(__name__)


async def ingest(
    spec: IngestSpec, progress: Progress, limits: ParseLimits | None = None
) -> IngestSummary:
    """Runs an ingestion; see IngestSpec for what it may do.

    Raises:
        Conflict: somebody else changes the collection.
        IncompatibleRequest: the collection holds another model's vectors.
        Unavailable: no LLM node answers, or the disk is full.
        CorruptData: the collection is damaged, naming the file.
        RagrigError: an error of the LLM node or the index builder.
    """
    store = CollectionStore(Path(spec.data_dir))
    node = EmbeddingNode(spec.llm_address)
    try:
        with store.lock(spec.collection):
            return await _Ingestion(spec, store, node, progress, limits or ParseLimits()).run()
    except OSError as error:
        raise storage_error(error, f"cannot write collection {spec.collection!r}") from error
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"cannot write collection {spec.collection!r}: {error}",
            field="data_dir",
            hint="check free space and permissions, then run it again; nothing was lost",
        ) from error
    finally:
        await node.close()


class _Ingestion:
    """The steps of one run, under the writer lock."""

    def __init__(
        self,
        spec: IngestSpec,
        store: CollectionStore,
        node: EmbeddingNode,
        progress: Progress,
        limits: ParseLimits,
    ) -> None:
        self._spec = spec
        self._store = store
        self._node = node
        self._progress = progress
        self._limits = limits
        self._directory = store.directory(spec.collection)
        self._staging = self._directory / "staging"
        self._work = self._staging / "run"
        self._started_s = time.monotonic()

    async def run(self) -> IngestSummary:
        snapshot = self._open()
        try:
            model = await self._node.model()
            base = self._base(snapshot, model)
            with self._workspace():
                return await self._run(snapshot, base, model)
        finally:
            if snapshot is not None:
                snapshot.close()

    def _open(self) -> Snapshot | None:
        try:
            return Snapshot.open(self._directory)
        except NotFound:
            return None

    def _base(self, snapshot: Snapshot | None, model: ModelInfo) -> Manifest:
        """The manifest to go on from, with the settings of this run."""
        spec = self._spec
        assert model.dim is not None, "embedders have a dimension"
        check_wish(Wish(spec.nlist, spec.m), model.dim)
        embedder = EmbedderRef(model.name, model.fingerprint)
        if snapshot is None:
            chunking = spec.chunking or ChunkingConfig()
            check_chunking_fits(chunking, model)
            wanted = CollectionSpec(
                model.dim,
                spec.metric or Metric.COSINE,
                spec.num_shards,
                embedder,
                chunking,
                spec.recall,
            )
            first = self._store.first_generation(spec.collection)
            return replace(empty_manifest(spec.collection, wanted, first), generation=first - 1)
        manifest = snapshot.manifest
        check_collection_fits(manifest, spec.metric, model)
        chunking = spec.chunking or manifest.chunking
        check_chunking_fits(chunking, model)
        recall = manifest.recall if spec.recall is None else spec.recall
        return replace(manifest, embedder=embedder, chunking=chunking, recall=recall)

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[None]:
        """Room for drafts, gone afterwards; staged vectors beside it stay for the next run."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    async def _run(
        self, snapshot: Snapshot | None, base: Manifest, model: ModelInfo
    ) -> IngestSummary:
        gathered, documents = await self._gather(snapshot, base.chunking)
        texts = TextsFile(self._work / "draft.sqlite")
        try:
            manifest = await self._build(snapshot, base, model, gathered, texts, documents)
        finally:
            texts.close()
        if manifest is None:
            self._discard(snapshot is None)
            return self._summary(gathered, base)
        commit(self._directory, manifest, snapshot.manifest if snapshot else None)
        self._discard(whole=False)
        gathered.notes.extend(note_about_index(manifest))
        return self._summary(gathered, manifest)

    def _discard(self, whole: bool) -> None:
        """Removes staged work; ``whole``: the folder of a collection that was never made."""
        shutil.rmtree(self._directory if whole else self._staging, ignore_errors=True)

    async def _gather(
        self, snapshot: Snapshot | None, chunking: ChunkingConfig
    ) -> tuple[Gathered, int]:
        spec = self._spec
        draft = TextsWriter(self._work / "draft.sqlite")
        gatherer = Gatherer(snapshot, self._node, chunking, draft, self._limits)
        try:
            if spec.documents_file is not None:
                await gatherer.take_documents_file(Path(spec.documents_file), self._progress)
            if spec.sources:
                scan = await asyncio.to_thread(scan_sources, spec.sources)
                self._note_unsupported(gatherer.result, scan)
                await gatherer.take_files(scan, self._progress, spec.prune)
        except BaseException:
            draft.abandon()
            raise
        draft.finish()
        return gatherer.result, gatherer.drafted

    @staticmethod
    def _note_unsupported(gathered: Gathered, scan: Scan) -> None:
        if scan.unsupported:
            kinds = ", ".join(f"{n} {ext}" for ext, n in scan.unsupported.most_common(8))
            total = scan.unsupported.total()
            gathered.note(f"{total} files of unsupported types were left out ({kinds})")

    async def _build(
        self,
        snapshot: Snapshot | None,
        base: Manifest,
        model: ModelInfo,
        gathered: Gathered,
        texts: TextsFile,
        documents: int,
    ) -> Manifest | None:
        """The next generation, written but not committed; None when nothing changes."""
        removed = gathered.removed_rows()
        wish = Wish(self._spec.nlist, self._spec.m)
        plan = choose(base, gathered.rows, len(removed), wish)
        if plan.note:
            gathered.note(plan.note)
        if plan.route is Route.NOTHING:
            return _with_other_recall(snapshot, base)
        path = self._work / "new.npy"
        vectors = create_vectors(path, gathered.rows, base.dim)
        staging = VectorStaging(self._staging / "vectors.sqlite", base.dim)
        try:
            await embed_draft(texts, vectors, self._node, model, staging, self._progress)
        finally:
            staging.close()
        vectors.flush()
        draft = Draft(texts, path, vectors, documents)
        change = Change(plan, draft, removed, gathered.removed_documents, wish)
        assembler = Assembler(self._directory, base, snapshot, self._work, self._progress)
        return await assembler.next_manifest(change)

    def _summary(self, gathered: Gathered, manifest: Manifest) -> IngestSummary:
        return IngestSummary(
            added=gathered.added,
            updated=gathered.updated,
            unchanged=gathered.unchanged,
            deleted=gathered.deleted,
            skipped=tuple(gathered.skipped),
            chunks=gathered.rows,
            live_rows=manifest.live_rows,
            generation=manifest.generation,
            index="exact" if manifest.index is None else "ivfpq",
            notes=tuple(gathered.notes),
            seconds=round(time.monotonic() - self._started_s, 3),
        )


def _with_other_recall(snapshot: Snapshot | None, base: Manifest) -> Manifest | None:
    """The next generation of a run that changes nothing but the wanted recall."""
    if snapshot is None or snapshot.manifest.recall == base.recall:
        return None
    old = snapshot.manifest
    return replace(old, generation=old.generation + 1, created_at=utc_now(), recall=base.recall)
