"""Stand-in nodes behind real ports: brute-force search, scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from ragschema import errors as e
from ragschema.storage.blockfile import read_blockfile
from ragschema.storage.manifest import Manifest, collection_dir, read_manifest
from ragschema.types import (
    GenerateEnd,
    ModelInfo,
    Role,
    SearchBatch,
    SearchResult,
    SnapshotId,
    TokenPiece,
)
from ragschema.wire import (
    common_pb2,
    convert,
    generating,
    llm_pb2,
    llm_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
    searches,
)
from ragschema.wire.convert import tensor_to_wire
from ragschema.wire.serving import ErrorInterceptor, Greeter, trace_id_of


class FakeServer:
    """A servicer behind a real port that can be cut off and brought back."""

    def __init__(self, servicer: FakeRetrieval | FakeLlm) -> None:
        self.servicer = servicer
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> FakeServer:
        """Serves, on the same port as before; like a new process it remembers nothing."""
        self.servicer.reset()
        self._server = grpc.aio.server(
            interceptors=(ErrorInterceptor(),), options=(("grpc.so_reuseport", 0),)
        )
        self.servicer.register(self._server)
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aenter__(self) -> FakeServer:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Breaks every connection and call at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


class FakeRetrieval(retrieval_pb2_grpc.RetrievalNodeServicer):
    """Searches by brute force, as vectors lie on disk; lists are those of the nearest centroid.

    Attributes:
        streams: offer searches in a stream, as real nodes do.
        pause_s: every search takes at least that long.
        failure: raised by every search.
        exact_pause_s, exact_failure: the same of exact searches alone.
        batches: what was asked.
        cancelled: searches that were given up.
    """

    streams = True

    def __init__(self, name: str, data_dir: Path, capabilities: tuple[str, ...] = ()) -> None:
        self.name = name
        self.data_dir = data_dir
        self.capabilities = capabilities or ("backend:fpga", "device:emulator", "filter")
        if self.streams:
            self.capabilities += ("stream",)
        self.pause_s = 0.0
        self.failure: e.RagrigError | None = None
        self.exact_pause_s = 0.0
        self.exact_failure: e.RagrigError | None = None
        self.batches: list[SearchBatch] = []
        self.trace_ids: list[str] = []
        self.cancelled = 0
        self.reset()

    def reset(self) -> None:
        self.greeter = Greeter(self.name, "retrieval", self.capabilities)
        self.loaded: dict[SnapshotId, dict[int, tuple[Any, Any, Any]]] = {}

    def register(self, server: grpc.aio.Server) -> None:
        retrieval_pb2_grpc.add_RetrievalNodeServicer_to_server(self, server)

    async def Hello(self, request: common_pb2.HelloRequest, context: Any) -> Any:
        return self.greeter.hello(request)

    async def LoadShards(self, request: retrieval_pb2.LoadShardsRequest, context: Any) -> Any:
        snapshot = convert.snapshot_from_wire(request.snapshot)
        directory = collection_dir(self.data_dir, snapshot.collection)
        manifest = read_manifest(directory)
        if manifest.generation != snapshot.generation:
            raise e.NotFound(f"generation {manifest.generation} is committed")
        shards = self.loaded.setdefault(snapshot, {})
        for number in request.shards:
            files = [
                read_blockfile(directory / segment.shards[number].path, "shard").arrays
                for segment in manifest.segments
            ]
            starts = [segment.row_start for segment in manifest.segments]
            ids = np.concatenate(
                [f["ids"].astype(np.int64) + at for f, at in zip(files, starts, strict=True)]
            )
            vectors = np.concatenate([f["vectors"] for f in files])
            if manifest.tombstones is not None:
                path = directory / manifest.tombstones.path
                live = ~np.isin(ids, read_blockfile(path, "tombstones").arrays["rows"])
                ids, vectors = ids[live], vectors[live]
            shards[number] = (ids, vectors, _lists_of(directory, manifest, vectors))
        rows = [len(shards[number][0]) for number in request.shards]
        return retrieval_pb2.LoadShardsReply(rows=rows)

    async def UnloadShards(self, request: retrieval_pb2.UnloadShardsRequest, context: Any) -> Any:
        found = self.loaded.pop(convert.snapshot_from_wire(request.snapshot), None)
        return retrieval_pb2.UnloadShardsReply(was_loaded=found is not None)

    async def Status(self, request: retrieval_pb2.RetrievalStatusRequest, context: Any) -> Any:
        loaded = [
            retrieval_pb2.LoadedSnapshot(
                snapshot=convert.snapshot_to_wire(snapshot),
                shards=list(shards),
                rows=sum(len(ids) for ids, _, _ in shards.values()),
            )
            for snapshot, shards in self.loaded.items()
        ]
        return retrieval_pb2.RetrievalStatusReply(backend="fpga", device="emulator", loaded=loaded)

    async def Search(self, request: retrieval_pb2.SearchRequest, context: Any) -> Any:
        batch = searches.search_from_wire(request, 4096)
        self.batches.append(batch)
        self.trace_ids.append(request.trace_id or trace_id_of(context))
        failure = self.exact_failure if batch.exact and self.exact_failure else self.failure
        if failure is not None:
            raise copy.copy(failure)
        try:
            await asyncio.sleep(self.exact_pause_s if batch.exact else self.pause_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if batch.snapshot not in self.loaded:
            raise e.NotFound(f"{batch.snapshot} is not loaded", field="snapshot")
        parts = [self.loaded[batch.snapshot][number] for number in batch.shards]
        ids, vectors, lists = (np.concatenate(part) for part in zip(*parts, strict=True))
        return searches.result_to_wire(brute_force(batch, ids, vectors, lists))

    async def SearchStream(self, request_iterator: Any, context: Any) -> Any:
        replies: asyncio.Queue[Any] = asyncio.Queue()
        tasks: dict[int, asyncio.Task[None]] = {}

        async def answer(request: Any) -> None:
            try:
                reply = await self.Search(request, context)
            except e.RagrigError as error:
                reply = retrieval_pb2.SearchReply(error=convert.error_to_wire(error))
            reply.request_id = request.request_id
            replies.put_nowait(reply)

        async def read() -> None:
            async for request in request_iterator:
                if request.cancel:
                    tasks.pop(request.request_id).cancel()
                else:
                    tasks[request.request_id] = asyncio.create_task(answer(request))

        tasks[0] = asyncio.create_task(read())
        try:
            while True:
                yield await replies.get()
        finally:
            for task in tasks.values():
                task.cancel()


def _lists_of(directory: Path, manifest: Manifest, vectors: Any) -> Any:
    """The list of each vector by inner product; all in list 0 without an index."""
    if manifest.index is None:
        return np.zeros(len(vectors), np.int32)
    arrays = read_blockfile(directory / manifest.index.file.path, "ivfpq-index").arrays
    return (vectors @ arrays["centroids"].T).argmax(axis=1).astype(np.int32)


def brute_force(batch: SearchBatch, ids: Any, vectors: Any, lists: Any) -> SearchResult:
    """Minus the inner product within the batch's lists, ties by row id."""
    n, k = len(batch.queries), batch.k
    distances = np.zeros((n, k), np.float32)
    row_ids = np.zeros((n, k), np.int64)
    counts = np.zeros(n, np.int32)
    for row, query in enumerate(batch.queries):
        allowed = np.ones(len(ids), bool)
        if batch.filter_of is not None and batch.filter_of[row] >= 0:
            bits = np.unpackbits(batch.filters[batch.filter_of[row]], bitorder="little")
            allowed = bits[ids].astype(bool)
        if batch.list_ids is not None and not batch.exact:
            allowed &= np.isin(lists, batch.list_ids[row])
        far = -(vectors[allowed] @ query)
        order = np.lexsort((ids[allowed], far))[:k]
        counts[row] = len(order)
        distances[row, : len(order)] = far[order]
        row_ids[row, : len(order)] = ids[allowed][order]
    return SearchResult(distances, row_ids, counts, rows_covered=len(ids))


class FakeLlm(llm_pb2_grpc.LlmNodeServicer):
    """Embeds by the sum of a text's characters and answers from a script.

    Attributes:
        script: pieces of every answer.
        pause_s: before every piece and every embedding.
        limit: the generator's longest input in words; None: no limit.
    """

    def __init__(self, name: str, dim: int, fingerprint: str = "fp-1") -> None:
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.roles = ("embed", "generate")
        self.script: tuple[str, ...] = ("All is ", "well [1", "].")
        self.pause_s = 0.0
        self.limit: int | None = None
        self.failure: e.RagrigError | None = None
        self.rerank_failure: e.RagrigError | None = None
        self.rewrite_failure: e.RagrigError | None = None
        self.running = self.cancelled = 0
        self.embeds: list[tuple[str, ...]] = []
        self.generated: list[llm_pb2.GenerateRequest] = []
        self.reranked: list[llm_pb2.RerankRequest] = []
        self.rewritten: list[llm_pb2.RewriteRequest] = []
        self.queries: tuple[str, ...] = ()
        self.scans: list[llm_pb2.IndexScanRequest] = []
        self.centroids: Any = np.zeros((1, dim), np.float32)
        self.scan_failure: e.RagrigError | None = None
        self.trace_ids: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.greeter = Greeter(self.name, "llm", self.roles)

    def register(self, server: grpc.aio.Server) -> None:
        llm_pb2_grpc.add_LlmNodeServicer_to_server(self, server)

    def vector(self, text: str) -> Any:
        """float32 [dim], unit length."""
        seed = sum(text.encode())
        vector = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        return vector / np.linalg.norm(vector)

    async def Hello(self, request: common_pb2.HelloRequest, context: Any) -> Any:
        return self.greeter.hello(request)

    async def Status(self, request: llm_pb2.LlmStatusRequest, context: Any) -> Any:
        embedder = ModelInfo(Role.EMBED, "fake-embedder", self.fingerprint, self.dim, 256)
        generator = ModelInfo(Role.GENERATE, "fake-generator", "g", None, self.limit)
        reranker = ModelInfo(Role.RERANK, "fake-reranker", "r", None, 64)
        rewriter = ModelInfo(Role.REWRITE, "fake-generator", "g", None, self.limit)
        scanner = ModelInfo(Role.INDEX_SCAN, "fake-scanner", "i", None, None)
        known = (embedder, generator, reranker, rewriter, scanner)
        models = [m for m in known if m.role in self.roles]
        wire = [convert.model_to_wire(m) for m in models]
        return llm_pb2.LlmStatusReply(models=wire, running=self.running)

    async def Tokenize(self, request: llm_pb2.TokenizeRequest, context: Any) -> Any:
        def borders(text: str) -> Any:
            spans = [m.span() for m in re.finditer(r"\S+", text)]
            return np.array(spans, np.int32).reshape(-1, 2)

        return llm_pb2.TokenizeReply(offsets=[tensor_to_wire(borders(t)) for t in request.texts])

    async def Embed(self, request: llm_pb2.EmbedRequest, context: Any) -> Any:
        self.embeds.append(tuple(request.texts))
        self.trace_ids.append(trace_id_of(context))
        async with self._working():
            await asyncio.sleep(self.pause_s)
            if self.failure is not None:
                raise copy.copy(self.failure)
            vectors = np.stack([self.vector(text) for text in request.texts])
            tokens = sum(len(text.split()) for text in request.texts)
            return llm_pb2.EmbedReply(vectors=tensor_to_wire(vectors), tokens=tokens)

    async def Rerank(self, request: llm_pb2.RerankRequest, context: Any) -> Any:
        """Scores are the numbers at the ends of texts; the nearer to 7 the better."""
        self.reranked.append(request)
        if self.rerank_failure is not None:
            raise copy.copy(self.rerank_failure)
        numbers = np.array([float(text.split()[-1]) for text in request.texts], np.float32)
        return llm_pb2.RerankReply(scores=tensor_to_wire(-abs(numbers - 7)))

    async def IndexScan(self, request: llm_pb2.IndexScanRequest, context: Any) -> Any:
        self.scans.append(request)
        if self.scan_failure is not None:
            raise copy.copy(self.scan_failure)
        queries = convert.tensor_from_wire(request.queries, np.float32, 2, "queries")
        far = ((queries[:, None] - self.centroids) ** 2).sum(2)
        lists = far.argsort(axis=1)[:, : request.nprobe].astype(np.int32)
        return llm_pb2.IndexScanReply(lists=tensor_to_wire(lists))

    async def Rewrite(self, request: llm_pb2.RewriteRequest, context: Any) -> Any:
        self.rewritten.append(request)
        if self.rewrite_failure is not None:
            raise copy.copy(self.rewrite_failure)
        return llm_pb2.RewriteReply(queries=self.queries, prompt_tokens=30, completion_tokens=5)

    async def Generate(self, request: llm_pb2.GenerateRequest, context: Any) -> Any:
        self.generated.append(request)
        self.trace_ids.append(trace_id_of(context))
        async with self._working():
            if self.failure is not None:
                raise copy.copy(self.failure)
            for piece in self.script:
                await asyncio.sleep(self.pause_s)
                yield generating.event_to_wire(TokenPiece(piece))
            yield generating.event_to_wire(GenerateEnd("stop", 11, len(self.script)))

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
