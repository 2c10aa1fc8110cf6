"""Small collections and rigs for tests of the pipeline and its parts."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.catalog import CatalogConfig
from coordinator.collections.commit import commit, utc_now
from coordinator.collections.store import CollectionStore
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsWriter
from coordinator.nodes.watched import WatchConfig
from coordinator.runtime import Runtime
from coordinator.types import FilterScalar
from ragschema.errors import RagrigError
from ragschema.rig import CoordinatorConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.storage.blockfile import write_blockfile
from ragschema.storage.manifest import (
    ChunkingConfig,
    CurvePoint,
    EmbedderRef,
    IndexRef,
    Manifest,
    SegmentRef,
    file_ref,
    read_manifest,
)
from ragschema.types import F32, CallContext, Metric
from tests.fake_nodes import FakeLlm, FakeRetrieval, FakeServer

DIM = 8
FAST = WatchConfig(period_s=0.05, timeout_s=2.0, retry_load_s=0.2)
FOLLOW = CatalogConfig(period_s=0.05, grace_s=0.1, retry_s=0.2)
CHUNKING = ChunkingConfig(200, 32)


def context(timeout_s: float = 20.0) -> CallContext:
    return CallContext.start(timeout_s)


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> F32:
    """float32 [rows, dim], seeded."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True)
class Content:
    """What a collection is to hold; one document per row.

    Attributes:
        metadata: of every document, by row.
        curve, recall: what was measured of the index, and what is wanted.
    """

    vectors: F32
    metric: Metric = Metric.COSINE
    num_shards: int = 2
    texts: Sequence[str] = ()
    metadata: Sequence[Mapping[str, FilterScalar]] = ()
    embedder: EmbedderRef | None = field(default_factory=lambda: EmbedderRef("fake", "fp-1"))
    centroids: F32 | None = None
    rotation: F32 | None = None
    refine_factor: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    recall: float | None = None

    def text(self, row: int) -> str:
        return self.texts[row] if self.texts else f"text of row {row}"


def write_collection(data_dir: Path, name: str, content: Content) -> Manifest:
    """Commits the next generation of a collection, with all of its rows new."""
    directory = CollectionStore(data_dir).directory(name)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        previous: Manifest | None = read_manifest(directory)
    except RagrigError:
        previous = None
    generation = previous.generation + 1 if previous else 1
    rows = len(content.vectors)
    segments = (_write_segment(directory, f"seg-{generation:06d}", content),) if rows else ()
    manifest = Manifest(
        format=2,
        collection=name,
        generation=generation,
        created_at=utc_now(),
        metric=content.metric,
        dim=content.vectors.shape[1],
        num_shards=content.num_shards,
        embedder=content.embedder,
        chunking=CHUNKING,
        index=_write_index(directory, generation, content),
        segments=segments,
        tombstones=None,
        next_row_id=rows,
        live_rows=rows,
        live_documents=rows,
        recall=content.recall,
    )
    commit(directory, manifest, previous)
    return manifest


def _write_index(directory: Path, generation: int, content: Content) -> IndexRef | None:
    if content.centroids is None:
        return None
    path = directory / "index" / f"idx-{generation:06d}.rag"
    path.parent.mkdir(exist_ok=True)
    codebooks = np.zeros((1, 256, content.centroids.shape[1]), np.float32)
    arrays = {"centroids": content.centroids, "codebooks": codebooks}
    if content.rotation is not None:
        arrays["rotation"] = content.rotation
    write_blockfile(path, "ivfpq-index", {}, arrays)
    return IndexRef(
        file=file_ref(directory, path),
        nlist=len(content.centroids),
        m=1,
        nprobe=2,
        refine_factor=content.refine_factor,
        curve=content.curve,
        rotated=content.rotation is not None,
    )


def _write_segment(directory: Path, segment_id: str, content: Content) -> SegmentRef:
    folder = directory / "segments" / segment_id
    folder.mkdir(parents=True)
    rows = np.arange(len(content.vectors), dtype=np.uint32)
    paths = []
    for shard in range(content.num_shards):
        mine = rows[shard :: content.num_shards]
        path = folder / f"shard-{shard}.rag"
        write_blockfile(path, "shard", {}, {"ids": mine, "vectors": content.vectors[mine]})
        paths.append(path)
    texts = TextsWriter(folder / "texts.sqlite")
    for row in range(len(rows)):
        texts.add(_document(row, content), [_chunk(row, content.text(row))])
    texts.finish()
    return SegmentRef(
        id=segment_id,
        row_start=0,
        row_count=len(rows),
        shards=tuple(file_ref(directory, p) for p in paths),
        texts=file_ref(directory, texts.path),
    )


def _document(row: int, content: Content) -> StoredDocument:
    text = content.text(row)
    return StoredDocument(
        doc=row + 1,
        document_id=f"doc-{row:04d}",
        title=f"Title {row}",
        source="test",
        root=None,
        origin=None,
        origin_hash=None,
        origin_documents=1,
        content_hash=hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        chunking=CHUNKING,
        bytes=len(text.encode()),
        ingested_at=utc_now(),
        metadata=content.metadata[row] if content.metadata else {},
        first_row=row,
        chunks=1,
    )


def _chunk(row: int, text: str) -> StoredChunk:
    tokens = len(text.split())
    return StoredChunk(row, row + 1, f"chunk-{row:04d}", 0, len(text), tokens, (), text)


@dataclass
class Stage:
    """A whole coordinator in front of stand-in nodes."""

    runtime: Runtime
    llms: list[FakeLlm]
    retrievals: list[FakeRetrieval]
    servers: dict[str, FakeServer]

    async def kill(self, name: str) -> None:
        await self.servers[name].kill()

    async def restart(self, name: str) -> None:
        await self.servers[name].start()


@asynccontextmanager
async def running_stage(
    data_dir: Path,
    *,
    llm_nodes: int = 1,
    retrieval_nodes: int = 2,
    replicas: int = 1,
    coordinator: CoordinatorConfig | None = None,
    prepare: Any = None,
) -> AsyncIterator[Stage]:
    """Starts the nodes, calls ``prepare(llms, retrievals)``, starts the coordinator."""
    llms = [FakeLlm(f"llm-{i}", DIM) for i in range(llm_nodes)]
    retrievals = [FakeRetrieval(f"ret-{i}", data_dir) for i in range(retrieval_nodes)]
    if prepare is not None:
        prepare(llms, retrievals)
    servers = {s.name: FakeServer(s) for s in (*llms, *retrievals)}
    for server in servers.values():
        await server.start()
    rig = RigConfig(
        data_dir=str(data_dir),
        replicas=replicas,
        coordinator=coordinator or CoordinatorConfig(),
        llm_nodes=tuple(LlmNodeConfig(name=s.name, address=servers[s.name].address) for s in llms),
        retrieval_nodes=tuple(
            RetrievalNodeConfig(name=s.name, address=servers[s.name].address) for s in retrievals
        ),
    )
    runtime = Runtime(rig, FAST, FOLLOW)
    await runtime.open()
    try:
        yield Stage(runtime, llms, retrievals, servers)
    finally:
        await runtime.stop()
        for server in servers.values():
            await server.kill()


def with_stages(**changes: Any) -> CoordinatorConfig:
    """A coordinator whose stages differ from the defaults."""
    plain = CoordinatorConfig()
    return replace(plain, stages=replace(plain.stages, **changes))
