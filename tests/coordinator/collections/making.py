"""A small committed collection, written without any node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from coordinator.collections.commit import commit, next_number
from coordinator.collections.store import CollectionSpec, CollectionStore
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsWriter
from coordinator.types import FilterScalar
from ragschema.storage.blockfile import write_blockfile
from ragschema.storage.manifest import (
    ChunkingConfig,
    EmbedderRef,
    IndexRef,
    Manifest,
    SegmentRef,
    file_ref,
    read_manifest,
)
from ragschema.types import Metric

SPEC = CollectionSpec(4, Metric.L2, 2, EmbedderRef("hashing", "hash-1"), ChunkingConfig())


@dataclass(frozen=True)
class Doc:
    """A document to store; one chunk per text."""

    document_id: str
    texts: Sequence[str]
    metadata: Mapping[str, FilterScalar] = field(default_factory=dict)
    root: str | None = None
    origin: str | None = None


def add_segment(directory: Path, docs: Sequence[Doc], with_index: bool = False) -> Manifest:
    """Commits the documents as a new segment of an existing collection."""
    old = read_manifest(directory)
    number = next_number(directory)
    folder = directory / "segments" / f"seg-{number:06d}"
    folder.mkdir(parents=True)
    rows = sum(len(d.texts) for d in docs)
    _write_texts(folder / "texts.sqlite", docs, old.next_row_id)
    shards = []
    for shard in range(old.num_shards):
        ids = np.arange(rows, dtype=np.uint32)[shard :: old.num_shards]
        path = folder / f"shard-{shard}.rag"
        vectors = np.outer(ids + old.next_row_id, np.ones(old.dim)).astype(np.float32)
        write_blockfile(path, "shard", {}, {"ids": ids, "vectors": vectors})
        shards.append(file_ref(directory, path))
    segment = SegmentRef(
        id=folder.name,
        row_start=old.next_row_id,
        row_count=rows,
        shards=tuple(shards),
        texts=file_ref(directory, folder / "texts.sqlite"),
    )
    manifest = replace(
        old,
        generation=old.generation + 1,
        segments=(*old.segments, segment),
        index=_write_index(directory, number, old.dim) if with_index else old.index,
        next_row_id=old.next_row_id + rows,
        live_rows=old.live_rows + rows,
        live_documents=old.live_documents + len(docs),
    )
    commit(directory, manifest, old)
    return manifest


def make_collection(
    data_dir: Path, name: str, docs: Sequence[Doc], with_index: bool = False
) -> CollectionStore:
    """A store with one collection of one segment."""
    store = CollectionStore(data_dir)
    store.create(name, SPEC)
    add_segment(store.directory(name), docs, with_index)
    return store


def _write_index(directory: Path, number: int, dim: int) -> IndexRef:
    path = directory / "index" / f"idx-{number:06d}.rag"
    path.parent.mkdir(exist_ok=True)
    arrays = {
        "centroids": np.ones((2, dim), np.float32),
        "codebooks": np.ones((2, 256, dim // 2), np.float32),
    }
    write_blockfile(path, "ivfpq-index", {}, arrays)
    return IndexRef(file_ref(directory, path), nlist=2, m=2, nprobe=1, refine_factor=4)


def _write_texts(path: Path, docs: Sequence[Doc], row: int) -> None:
    writer = TextsWriter(path)
    for number, doc in enumerate(docs):
        writer.add(
            StoredDocument(
                doc=number,
                document_id=doc.document_id,
                title=f"Title of {doc.document_id}",
                source="test",
                root=doc.root,
                origin=doc.origin,
                origin_hash="h" if doc.origin else None,
                origin_documents=1,
                content_hash=f"hash of {doc.document_id}",
                chunking=ChunkingConfig(),
                bytes=sum(len(t) for t in doc.texts),
                ingested_at="2026-01-01T00:00:00+00:00",
                metadata=doc.metadata,
                first_row=row,
                chunks=len(doc.texts),
            ),
            [
                StoredChunk(row + i, number, f"id-{row + i}", i, i + 1, 3, ("A", "B"), text)
                for i, text in enumerate(doc.texts)
            ],
        )
        row += len(doc.texts)
    writer.finish()
