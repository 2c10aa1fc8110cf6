"""Vectors to search: clustered ones, coded by the index builder that ingestion uses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import numpy as np

from coordinator.collections.commit import commit, utc_now
from coordinator.collections.store import CollectionSpec, CollectionStore, empty_manifest
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsFile, TextsWriter
from coordinator.ingest.assemble import Assembler, Change, Draft
from coordinator.ingest.node_command import Progress
from coordinator.ingest.plan import Wish, choose
from coordinator.ingest.vectors import create_vectors
from ragschema.storage.manifest import ChunkingConfig, EmbedderRef, Manifest
from ragschema.types import F32, Metric

NAME: Final = "profile"
#: Fewer vectors in as many lists, so that probed lists and scanned codes can be told apart.
SPARSE_NAME: Final = "profile-sparse"
#: As many vectors in more lists, for nodes that find the nearest of those.
LISTS_NAME: Final = "profile-lists"
_SPARSE_PART: Final = 8
_MORE_LISTS: Final = 4
_LEAST_ROWS: Final = 1500
#: Rows of a document; only counts matter.
_DOCUMENT_ROWS: Final = 1000
#: Distance of a vector from its cluster's centre, over that between centres.
_SPREAD: Final = 0.5
_SEED: Final = 5
_TEXT: Final = "Nothing is said here; only the time of finding it is of interest."


@dataclass(frozen=True)
class Vectors:
    """What is searched.

    Attributes:
        nlist, m: of the index.
    """

    count: int
    dim: int
    nlist: int
    m: int

    def sparse(self) -> Vectors:
        """A fraction of them, in as many lists."""
        return replace(self, count=max(_LEAST_ROWS, self.count // _SPARSE_PART))

    def more_lists(self) -> Vectors:
        """As many of them, in more lists."""
        return replace(self, nlist=self.nlist * _MORE_LISTS)


def clustered(count: int, dim: int, seed: int) -> F32:
    """float32 [count, dim]: uniform ones would make every index look the same, and useless."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 200), dim), dtype=np.float32)
    near = centres[rng.integers(0, len(centres), count)]
    near += np.float32(_SPREAD) * rng.standard_normal((count, dim), dtype=np.float32)
    return near


def _nothing_to_say(_row: int) -> str:
    return _TEXT


@dataclass(frozen=True)
class Contents:
    """What rows say, and whose vectors they are.

    Attributes:
        text: of a row.
        embedder: that questions in words are asked with; None: only vectors are.
    """

    text: Callable[[int], str] = _nothing_to_say
    embedder: EmbedderRef | None = None


async def make_collection(
    data_dir: Path,
    name: str,
    vectors: Vectors,
    progress: Progress,
    contents: Contents | None = None,
) -> Manifest:
    """A committed collection of one shard.

    Args:
        contents: None: every row says the same, and has nobody's vector.

    Raises:
        RagrigError: the builder's.
    """
    contents = contents or Contents()
    store = CollectionStore(data_dir)
    with store.making(name) as directory:
        work = directory / "staging" / "run"
        work.mkdir(parents=True)
        rows = create_vectors(work / "new.npy", vectors.count, vectors.dim)
        rows[:] = clustered(vectors.count, vectors.dim, _SEED)
        rows.flush()
        documents = _write_texts(work / "draft.sqlite", vectors.count, contents.text)
        texts = TextsFile(work / "draft.sqlite")
        try:
            draft = Draft(texts, work / "new.npy", cast("F32", rows), documents)
            manifest = await _assembled(
                store, directory, vectors, draft, progress, contents.embedder
            )
        finally:
            texts.close()
        commit(directory, manifest, None)
        shutil.rmtree(directory / "staging", ignore_errors=True)
    return manifest


async def _assembled(
    store: CollectionStore,
    directory: Path,
    vectors: Vectors,
    draft: Draft,
    progress: Progress,
    embedder: EmbedderRef | None,
) -> Manifest:
    wish = Wish(vectors.nlist, vectors.m)
    spec = CollectionSpec(vectors.dim, Metric.L2, 1, embedder=embedder)
    first = store.first_generation(directory.name)
    base = replace(empty_manifest(directory.name, spec, first), generation=first - 1)
    plan = choose(base, vectors.count, 0, wish)
    change = Change(plan, draft, np.empty(0, dtype=np.int64), 0, wish)
    return await Assembler(
        directory, base, None, directory / "staging" / "run", progress
    ).next_manifest(change)


def _write_texts(path: Path, count: int, text: Callable[[int], str]) -> int:
    """Documents of equal size; how many."""
    writer = TextsWriter(path)
    try:
        for doc, first in enumerate(range(0, count, _DOCUMENT_ROWS)):
            rows = range(first, min(count, first + _DOCUMENT_ROWS))
            writer.add(_document(doc, rows), [_chunk(doc, row, text(row)) for row in rows])
    except BaseException:
        writer.abandon()
        raise
    writer.finish()
    return -(-count // _DOCUMENT_ROWS)


def _document(doc: int, rows: range) -> StoredDocument:
    return StoredDocument(
        doc=doc,
        document_id=f"profile/{doc}",
        title=f"Profile {doc}",
        source="profile",
        root=None,
        origin=None,
        origin_hash=None,
        origin_documents=1,
        content_hash=str(doc),
        chunking=ChunkingConfig(),
        bytes=len(_TEXT),
        ingested_at=utc_now(),
        metadata={},
        first_row=rows.start,
        chunks=len(rows),
    )


def _chunk(doc: int, row: int, text: str) -> StoredChunk:
    return StoredChunk(row, doc, f"{row:032x}", 0, len(text), len(text.split()), (), text)
