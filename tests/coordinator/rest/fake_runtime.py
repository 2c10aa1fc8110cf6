"""A runtime behind the REST edge's port: answers at once, keeps count, needs no nodes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.collections.snapshot import DocumentInfo
from coordinator.collections.store import CollectionSpec, empty_manifest
from coordinator.jobs.runner import JobOptions, JobRunner
from coordinator.jobs.spool import Spool
from coordinator.metrics import Metrics
from coordinator.nodes.health import NodeHealth
from coordinator.recall.window import RecallEstimate
from coordinator.types import (
    Choice,
    Chunk,
    Citation,
    CitationEvent,
    Coverage,
    DoneEvent,
    Hit,
    QueryEvent,
    QuerySpec,
    RetrievalEvent,
    RetrievalReport,
    SearchOutcome,
    SearchSpec,
    Timings,
    TokenEvent,
    Usage,
)
from ragschema.errors import Conflict, IncompatibleRequest, NotFound, RagrigError
from ragschema.rig import (
    CoordinatorConfig,
    LimitsConfig,
    LlmNodeConfig,
    RetrievalNodeConfig,
    RigConfig,
)
from ragschema.storage.manifest import Manifest
from ragschema.types import (
    F32,
    CallContext,
    EmbedPurpose,
    Metric,
    ModelInfo,
    Role,
    TokenChance,
    TokenLogprob,
)

DIM = 4
EMBEDDER = ModelInfo(Role.EMBED, "minilm", "abc", DIM, 256)
GENERATOR = ModelInfo(Role.GENERATE, "extractive", "def", None, None)
WORDS = ("Keys ", "are ", "rotated ", "weekly [1].")

#: Stands for ``python -m coordinator.ingest run``: reports, then ends well.
GOOD_INGESTION = """
import json, sys
spec = json.load(open(sys.argv[1]))
count = sum(1 for _ in open(spec["documents_file"], encoding="utf-8"))
for done in range(count + 1):
    print(json.dumps({"phase": "embed", "done": done, "total": count}), flush=True)
print(json.dumps({"summary": {"added": count}}))
"""
ENDLESS_INGESTION = """
import json, time
print(json.dumps({"phase": "embed", "done": 1, "total": 3}), flush=True)
time.sleep(600)
"""


def program(source: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", source)


def hits(count: int) -> tuple[Hit, ...]:
    return tuple(
        Hit(
            Chunk(
                row_id=row,
                chunk_id=f"{row:032x}",
                document_id=f"guides/{row}",
                title=f"Guide {row}",
                start=row * 10,
                end=row * 10 + 400,
                text=f"Keys are rotated weekly, says passage {row}. " * 10,
                headings=("Keys", "Rotation"),
                tokens=100,
                metadata={"year": 2026, "lang": "en"},
            ),
            score=1.0 - row / 100,
        )
        for row in range(count)
    )


class FakeSnapshot:
    """A collection that is a list of documents."""

    def __init__(self, manifest: Manifest, documents: tuple[DocumentInfo, ...]) -> None:
        self.manifest = manifest
        self.all_documents = documents

    def documents(self, offset: int, limit: int) -> list[DocumentInfo]:
        return list(self.all_documents[offset : offset + limit])

    def document(self, document_id: str) -> DocumentInfo:
        for info in self.all_documents:
            if info.document_id == document_id:
                return info
        raise NotFound(f"there is no document {document_id!r}", field="document_id")


class FakeStore:
    """Collections in memory."""

    def __init__(self) -> None:
        self.snapshots: dict[str, FakeSnapshot] = {}

    def names(self) -> list[str]:
        return sorted(self.snapshots)

    def snapshot(self, name: str) -> FakeSnapshot:
        if name not in self.snapshots:
            raise NotFound(f"there is no collection {name!r}", field="collection")
        return self.snapshots[name]

    def create(self, name: str, spec: CollectionSpec) -> Manifest:
        if name in self.snapshots:
            raise Conflict(f"collection {name!r} exists already", field="name")
        self.snapshots[name] = FakeSnapshot(empty_manifest(name, spec, 1), ())
        return self.snapshots[name].manifest

    def drop(self, name: str) -> None:
        self.snapshot(name)
        del self.snapshots[name]

    def set_recall(self, name: str, recall: float | None) -> Manifest:
        old = self.snapshot(name)
        manifest = replace(old.manifest, generation=old.manifest.generation + 1, recall=recall)
        self.snapshots[name] = FakeSnapshot(manifest, old.all_documents)
        return manifest

    def delete_documents(self, name: str, document_ids: Sequence[str]) -> Manifest:
        old = self.snapshot(name)
        for document_id in document_ids:
            old.document(document_id)
        kept = tuple(d for d in old.all_documents if d.document_id not in document_ids)
        manifest = replace(
            old.manifest, generation=old.manifest.generation + 1, live_documents=len(kept)
        )
        self.snapshots[name] = FakeSnapshot(manifest, kept)
        return manifest


class FakeCatalog:
    """What the store holds, seen at the last refresh."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._seen: dict[str, FakeSnapshot] = {}
        self.broken: dict[str, RagrigError] = {}
        self.refreshed: list[str | None] = []

    def names(self) -> list[str]:
        return sorted(self._seen)

    def current(self, name: str) -> Any:
        if name in self.broken:
            raise self.broken[name]
        if name not in self._seen:
            raise NotFound(f"there is no collection {name!r}", field="collection")
        return self._seen[name]

    def errors(self) -> dict[str, RagrigError]:
        return self.broken

    async def refresh(self, name: str | None = None) -> None:
        self.refreshed.append(name)
        self._seen = dict(self._store.snapshots)


class FakePool:
    """Nodes that say whatever the test wants."""

    def __init__(self, rig: RigConfig) -> None:
        self._rig = rig
        self.down: set[str] = set()
        self.known_models: tuple[ModelInfo, ...] = (EMBEDDER, GENERATOR)

    def health(self) -> tuple[NodeHealth, ...]:
        nodes = [("llm", node) for node in self._rig.llm_nodes]
        nodes += [("retrieval", node) for node in self._rig.retrieval_nodes]  # type: ignore[list-item]
        return tuple(
            NodeHealth(
                name=node.name,
                kind=kind,  # type: ignore[arg-type]
                address=str(node.address),
                ready=node.name not in self.down,
                latency_ms=0.5,
                error="connection refused" if node.name in self.down else None,
                instance_id="f" * 16,
                detail={"running": 0, "shards": ("docs/1/0",)},
            )
            for kind, node in nodes
        )

    def leaving(self) -> tuple[NodeHealth, ...]:
        return ()

    def models(self) -> tuple[ModelInfo, ...]:
        return self.known_models


def _logprobs_of(words: tuple[str, ...]) -> tuple[TokenLogprob, ...]:
    rare = TokenChance("\ufffd", b"\xc3", -9.5)
    return tuple(TokenLogprob(TokenChance(word, word.encode(), -0.25), (rare,)) for word in words)


class FakePipeline:
    """Answers at once, or as slowly and as wrongly as the test wants.

    Attributes:
        running: operations under way; 0 once everything was cancelled.
        cancelled: operations that did not reach their end.
    """

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._hits = hits(100)
        self.search_s = 0.0
        self.token_s = 0.0
        self.words: tuple[str, ...] = WORDS
        self.error: Exception | None = None
        self.late_error: Exception | None = None
        self.running = 0
        self.cancelled = 0
        self.specs: list[SearchSpec | QuerySpec] = []
        self.contexts: list[CallContext] = []
        self.estimates: dict[str, RecallEstimate] = {}

    async def search(self, spec: SearchSpec, context: CallContext) -> SearchOutcome:
        self.specs.append(spec)
        self.contexts.append(context)
        self.running += 1
        try:
            if self.search_s:
                await asyncio.sleep(self.search_s)
            return self._outcome(spec)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def _outcome(self, spec: SearchSpec) -> SearchOutcome:
        if self.error is not None:
            raise self.error
        dim = self._store.snapshot(spec.collection).manifest.dim
        if spec.vector is not None and len(spec.vector) != dim:
            raise IncompatibleRequest(
                f"the vector has {len(spec.vector)} dimensions, the collection {dim}",
                field="vector",
            )
        return SearchOutcome(
            collection=spec.collection,
            generation=1,
            hits=self._hits[: spec.k],
            coverage=Coverage(0.5, ("shard-1",)),
            timings=Timings(queue_ms=0.1, scan_ms=1.5, total_ms=2.0),
            usage=Usage(embed_tokens=3),
            retrieval=RetrievalReport(8, 20, 0.95, True, 12, 0.25, False),
        )

    def recall_estimates(self) -> dict[str, RecallEstimate]:
        return self.estimates

    async def query(self, spec: QuerySpec, context: CallContext) -> AsyncIterator[QueryEvent]:
        self.specs.append(spec)
        self.contexts.append(context)
        self.running += 1
        finished = False
        try:
            outcome = self._outcome(spec.search)
            yield RetrievalEvent(outcome)
            citation = Citation(1, outcome.hits[0], cited=True)
            told = _logprobs_of(self.words) if spec.sampling.logprobs is not None else ()
            for place, word in enumerate(self.words):
                if self.token_s:
                    await asyncio.sleep(self.token_s)
                for index in range(spec.sampling.n):
                    yield TokenEvent(word, index, told[place : place + 1])
            if self.late_error is not None:
                raise self.late_error
            yield CitationEvent(citation)
            finished = True
            other = Choice("".join(self.words), "length", (replace(citation, cited=False),), told)
            yield DoneEvent(
                answer="".join(self.words),
                finish_reason="stop",
                model=GENERATOR.name,
                citations=(citation,),
                coverage=outcome.coverage,
                timings=replace(outcome.timings, first_token_ms=1.0),
                usage=Usage(prompt_tokens=20, completion_tokens=4, embed_tokens=3),
                retrieval=outcome.retrieval,
                logprobs=told,
                others=(other,) * (spec.sampling.n - 1),
            )
        finally:
            self.running -= 1
            self.cancelled += not finished

    async def embed(
        self, texts: tuple[str, ...], purpose: EmbedPurpose, context: CallContext
    ) -> tuple[F32, int]:
        if self.error is not None:
            raise self.error
        rows = [[float(len(text)), 0.5, -0.25, 1.0] for text in texts]
        return np.asarray(rows, dtype=np.float32), sum(len(text.split()) for text in texts)


class FakeRuntime:
    """Everything the edge asks of a runtime."""

    def __init__(self, data_dir: Path, limits: LimitsConfig) -> None:
        self.rig = RigConfig(
            data_dir=str(data_dir),
            coordinator=CoordinatorConfig(limits=limits),
            llm_nodes=(LlmNodeConfig(name="llm-0", address="127.0.0.1:1"),),
            retrieval_nodes=(
                RetrievalNodeConfig(name="ret-0", address="127.0.0.1:2"),
                RetrievalNodeConfig(name="ret-1", address="127.0.0.1:3"),
            ),
        )
        self.store = FakeStore()
        self.catalog = FakeCatalog(self.store)
        self.pool = FakePool(self.rig)
        self.pipeline = FakePipeline(self.store)
        self.metrics = Metrics()
        self.replanner: Any = None

    async def add_collection(self, name: str, documents: int = 3) -> None:
        spec = CollectionSpec(dim=DIM, metric=Metric.COSINE, num_shards=2, embedder=None)
        manifest = replace(empty_manifest(name, spec, 1), live_documents=documents)
        infos = tuple(
            DocumentInfo(
                document_id=f"guides/{number}",
                title=f"Guide {number}",
                source="upload",
                content_hash=f"{number:032x}",
                chunks=2,
                bytes=100,
                ingested_at="2026-11-20T00:00:00+00:00",
                metadata={"year": 2026},
            )
            for number in range(documents)
        )
        self.store.snapshots[name] = FakeSnapshot(manifest, infos)
        await self.catalog.refresh(name)


def make_jobs(runtime: FakeRuntime, options: JobOptions) -> JobRunner:
    spool = Spool(Path(runtime.rig.data_dir) / "run" / "spool")
    return JobRunner(options, spool, runtime.catalog.refresh)
