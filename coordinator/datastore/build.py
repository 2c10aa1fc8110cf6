"""A corpus and a model become a kNN-LM datastore, whole or not at all.

Memory holds one call's states at a time; the index is built from files. A run
that was killed leaves nothing behind and starts anew.
"""

from __future__ import annotations

import shutil
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from coordinator.collections.commit import commit, utc_now
from coordinator.collections.store import (
    CollectionSpec,
    CollectionStore,
    empty_manifest,
)
from coordinator.collections.texts import StoredDocument, TextsFile, TextsWriter
from coordinator.datastore.node import StateRows, StatesNode
from coordinator.datastore.rows import KIND, KIND_KEY, chunks_of
from coordinator.datastore.windows import Window, calls_of, windows_of
from coordinator.ingest.assemble import Assembler, Change, Draft
from coordinator.ingest.node_command import Progress
from coordinator.ingest.plan import Wish, choose
from coordinator.ingest.vectors import create_vectors
from ragschema.errors import InvalidInput
from ragschema.storage.manifest import ChunkingConfig, EmbedderRef, Manifest
from ragschema.types import Metric, ModelInfo

_COPY_ROWS = 65_536


@dataclass(frozen=True)
class DatastoreRequest:
    """What to make.

    Attributes:
        sources: files and folders, of the kinds that ingestion reads.
        llm_address: host:port of the node that runs the model.
        window_chars: the model reads so much at a time; states at its beginning
            know little of what came before.
    """

    data_dir: Path
    collection: str
    sources: tuple[Path, ...]
    llm_address: str
    num_shards: int
    window_chars: int = 1000


@dataclass(frozen=True)
class BuiltDatastore:
    """The committed collection, and what was left out."""

    manifest: Manifest
    notes: tuple[str, ...]


async def build_datastore(request: DatastoreRequest, progress: Progress) -> BuiltDatastore:
    """Makes a new collection of a model's states.

    Raises:
        Conflict: the collection exists, or somebody is making it.
        InvalidInput: the sources hold no text.
        Unavailable: the node does not answer, or the disk is full.
    """
    store = CollectionStore(request.data_dir)
    node = StatesNode(request.llm_address)
    try:
        with store.making(request.collection) as directory:
            return await _Build(request, store, directory, node, progress).run()
    finally:
        await node.close()


class _Build:
    """The steps, under the writer lock."""

    def __init__(
        self,
        request: DatastoreRequest,
        store: CollectionStore,
        directory: Path,
        node: StatesNode,
        progress: Progress,
    ) -> None:
        self._request = request
        self._store = store
        self._directory = directory
        self._node = node
        self._progress = progress
        self._work = directory / "staging" / "run"
        self._rows = self._documents = self._dim = 0
        self._notes: list[str] = []

    async def run(self) -> BuiltDatastore:
        model = await self._node.model()
        self._work.mkdir(parents=True)
        await self._draft()
        if not self._rows:
            raise InvalidInput(
                "the sources hold no text", field="sources", hint="name files or folders with text"
            )
        vectors = self._vectors()
        texts = TextsFile(self._work / "draft.sqlite")
        try:
            manifest = await self._assemble(model, texts, vectors)
        finally:
            texts.close()
        commit(self._directory, manifest, None)
        shutil.rmtree(self._directory / "staging", ignore_errors=True)
        return BuiltDatastore(manifest, tuple(self._notes))

    async def _draft(self) -> None:
        """All states into a file of rows, all tokens into a draft of texts."""
        request = self._request
        texts = TextsWriter(self._work / "draft.sqlite")
        windows = windows_of(request.sources, request.window_chars, self._notes, self._progress)
        try:
            with (self._work / "rows.f32").open("wb") as rows:
                async with aclosing(calls_of(windows)) as calls:
                    async for call in calls:
                        found = await self._node.states([window.text for window in call])
                        for window, states in zip(call, found, strict=True):
                            self._add(window, states, texts, rows)
        except BaseException:
            texts.abandon()
            raise
        texts.finish()

    def _add(self, window: Window, states: StateRows, texts: TextsWriter, rows: BinaryIO) -> None:
        count = len(states.next_tokens)
        if not count:
            return
        self._dim = states.hidden.shape[1]
        rows.write(states.hidden.astype("<f4", copy=False).tobytes())
        key = f"{window.document_id}#{window.number}"
        texts.add(
            _document(window, key, self._documents, self._rows, count),
            chunks_of(states.next_tokens.tolist(), self._rows, self._documents, key),
        )
        self._rows += count
        self._documents += 1

    def _vectors(self) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
        """float32 [rows, dim] as the index builder reads it."""
        raw = self._work / "rows.f32"
        source = np.memmap(raw, np.dtype("<f4"), mode="r", shape=(self._rows, self._dim))
        out = create_vectors(self._work / "new.npy", self._rows, self._dim)
        for start in range(0, self._rows, _COPY_ROWS):
            out[start : start + _COPY_ROWS] = source[start : start + _COPY_ROWS]
        out.flush()
        raw.unlink()
        return cast("np.memmap[tuple[int, int], np.dtype[np.float32]]", out)

    async def _assemble(
        self,
        model: ModelInfo,
        texts: TextsFile,
        vectors: np.memmap[tuple[int, int], np.dtype[np.float32]],
    ) -> Manifest:
        request, wish = self._request, Wish()
        embedder = EmbedderRef(model.name, model.fingerprint)
        spec = CollectionSpec(self._dim, Metric.L2, request.num_shards, embedder)
        first = self._store.first_generation(request.collection)
        base = replace(empty_manifest(request.collection, spec, first), generation=first - 1)
        draft = Draft(texts, self._work / "new.npy", vectors, self._documents)
        plan = choose(base, self._rows, 0, wish)
        change = Change(plan, draft, np.empty(0, dtype=np.int64), 0, wish)
        assembler = Assembler(self._directory, base, None, self._work, self._progress)
        return await assembler.next_manifest(change)


def _document(window: Window, key: str, doc: int, first_row: int, count: int) -> StoredDocument:
    return StoredDocument(
        doc=doc,
        document_id=key,
        title=window.document_id,
        source=window.source,
        root=None,
        origin=None,
        origin_hash=None,
        origin_documents=1,
        content_hash=key,
        chunking=ChunkingConfig(),
        bytes=len(window.text.encode()),
        ingested_at=utc_now(),
        metadata={KIND_KEY: KIND},
        first_row=first_row,
        chunks=count,
    )
