"""The gRPC servicer of a retrieval node."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc

from ragschema.errors import PayloadTooLarge
from ragschema.types import SearchBatch, SearchResult
from ragschema.wire import common_pb2, raw, retrieval_pb2, retrieval_pb2_grpc
from ragschema.wire.convert import snapshot_from_wire, snapshot_to_wire
from ragschema.wire.searches import SearchParts, batch_from_parts
from ragschema.wire.serving import DEFAULT_MAX_MESSAGE_BYTES, Greeter, trace_id_of
from retrieval_node.backends.base import Backend
from retrieval_node.backends.fpga.counters import HasCard
from retrieval_node.cancel import Cancellation
from retrieval_node.checks import MAX_K, check_search
from retrieval_node.coalesce import CoalesceLimits
from retrieval_node.counters import Counters
from retrieval_node.engine import SearchEngine
from retrieval_node.loaded import LoadedSnapshots
from retrieval_node.shard import Memory, ShardSet
from retrieval_node.stream import SearchStream
from retrieval_node.workers import SearchPool

SERVICE_NAME = "ragrig.wire.v1.RetrievalNode"

_Context = grpc.aio.ServicerContext[Any, Any]
_Answer = TypeVar("_Answer")
_ABILITIES = ("filter", "refine", "exact", "ivfpq", "stream")
_RESULT_BYTES = 12
_MESSAGE_SLACK_BYTES = 4096


@dataclass(frozen=True)
class NodeConfig:
    """What a retrieval node is started with.

    Attributes:
        data_dir: collections lie in ``<data_dir>/collections``.
        backend: what the node was asked to run; None: what the backend calls
            itself. They differ where faiss stands in for compiled code.
        workers: kernel calls that run at once; a backend may spread one call
            over several threads of its own.
        max_waiting: searches that may queue behind them.
        cpu: that the workers are pinned to; None: any. The backend pins its own threads.
        memory: map shard files, or copy them into huge pages.
    """

    name: str
    data_dir: Path
    backend: str | None = None
    workers: int = 1
    max_waiting: int = 256
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    coalesce: CoalesceLimits = field(default_factory=CoalesceLimits)
    cpu: int | None = None
    memory: Memory = "map"


class RetrievalServicer(retrieval_pb2_grpc.RetrievalNodeServicer):
    """Implements ``proto/ragschema/wire/retrieval.proto``.

    ``Search`` and ``SearchStream`` take and give serialised messages, so it has
    to be added to a server by ``register``.
    """

    def __init__(self, config: NodeConfig, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._engine = SearchEngine(backend)
        self._snapshots = LoadedSnapshots(config.data_dir, self._engine, config.memory)
        self._counters = Counters()
        self._streams: set[SearchStream] = set()
        self._pool = SearchPool(
            self._search, config.workers, config.max_waiting, config.coalesce, self._counters,
            config.cpu,
        )  # fmt: skip
        # Loads are rare and long: one thread of their own keeps searches going.
        self._loader = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="load")
        # A set: a peer asks for the backend of its rig file, whoever stands in for it.
        backends = {f"backend:{name}" for name in (backend.name, config.backend) if name}
        capabilities = (*backends, f"device:{backend.device}", *_ABILITIES)
        self._greeter = Greeter(config.name, "retrieval", capabilities)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the node's methods to a server."""
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, _handlers(self)),)
        )

    async def Hello(
        self, request: common_pb2.HelloRequest, context: _Context
    ) -> common_pb2.HelloReply:
        return self._greeter.hello(request)

    async def LoadShards(
        self, request: retrieval_pb2.LoadShardsRequest, context: _Context
    ) -> retrieval_pb2.LoadShardsReply:
        snapshot = snapshot_from_wire(request.snapshot)
        shards = tuple(request.shards)
        loaded = await self._in_loader(lambda: self._snapshots.load(snapshot, shards))
        return retrieval_pb2.LoadShardsReply(
            rows=[loaded.shards[s].live_rows for s in shards],
            resident_bytes=loaded.resident_bytes,
        )

    async def UnloadShards(
        self, request: retrieval_pb2.UnloadShardsRequest, context: _Context
    ) -> retrieval_pb2.UnloadShardsReply:
        snapshot = snapshot_from_wire(request.snapshot)
        shards = tuple(request.shards)
        # In the loader's thread: freeing memory may take a while.
        was_loaded = await self._in_loader(lambda: self._snapshots.unload(snapshot, shards or None))
        return retrieval_pb2.UnloadShardsReply(was_loaded=was_loaded)

    async def _in_loader(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)

    async def Status(
        self, request: retrieval_pb2.RetrievalStatusRequest, context: _Context
    ) -> retrieval_pb2.RetrievalStatusReply:
        totals = self._counters.totals
        return retrieval_pb2.RetrievalStatusReply(
            backend=self._backend.name,
            device=self._backend.device,
            loaded=[_loaded_to_wire(held) for held in self._snapshots.all()],
            running=self._pool.running,
            waiting=self._pool.waiting,
            searches_total=totals.searches,
            queries_total=totals.queries,
            codes_scanned_total=totals.codes,
            uptime_s=self._greeter.uptime_s(),
            bytes_scanned_total=totals.bytes,
            survivors_total=totals.survivors,
            queue_us_total=totals.queue_us,
            scan_us_total=totals.scan_us,
            batches_total=totals.batches,
            card=_card_to_wire(self._backend),
        )

    async def Search(self, request: Any, context: _Context) -> Any:
        """A serialised SearchRequest to a serialised SearchReply."""
        shard_set, batch = self._admit(raw.read_search(request))
        return await self._pool.run(shard_set, batch, _deadline_s(context), trace_id_of(context))

    async def SearchStream(self, request_iterator: Any, context: _Context) -> AsyncIterator[Any]:
        """The same for a stream of them."""
        stream = SearchStream(self._admit, self._pool, _deadline_s(context))
        requests = cast("AsyncIterable[bytes]", request_iterator)
        self._streams.add(stream)
        try:
            async with aclosing(cast("Any", stream.replies(requests))) as replies:
                async for reply in replies:
                    yield reply
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """Lets open streams end, which otherwise outlive every grace period."""
        for stream in self._streams:
            stream.drain()

    def _admit(self, parts: SearchParts) -> tuple[ShardSet, SearchBatch]:
        """Everything that can be refused before the search is queued."""
        batch = batch_from_parts(parts, MAX_K)
        shard_set = self._snapshots.get(batch.snapshot)
        check_search(shard_set, batch)
        self._check_reply_size(batch)
        return shard_set, batch

    def _search(
        self, shard_set: ShardSet, batch: SearchBatch, cancel: Cancellation
    ) -> SearchResult:
        return self._engine.search(shard_set, batch, cancel)

    def _check_reply_size(self, batch: SearchBatch) -> None:
        need = len(batch.queries) * batch.k * _RESULT_BYTES + _MESSAGE_SLACK_BYTES
        if need > self._config.max_message_bytes:
            raise PayloadTooLarge(
                f"{len(batch.queries)} queries with k {batch.k} make an answer of {need} bytes,"
                f" the limit is {self._config.max_message_bytes}",
                field="k",
                hint="ask fewer queries at once, or a smaller k",
            )

    def close(self) -> None:
        """Lets running searches end; frees the device."""
        self._pool.close()
        self._loader.shutdown(wait=True)
        self._backend.close()


def _handlers(servicer: RetrievalServicer) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """As the generated ones, except that searches are not parsed by the library,
    which would copy every tensor; clients and reflection see no difference."""
    unary = grpc.unary_unary_rpc_method_handler
    return {
        "Hello": unary(
            servicer.Hello,
            common_pb2.HelloRequest.FromString,
            common_pb2.HelloReply.SerializeToString,
        ),
        "LoadShards": unary(
            servicer.LoadShards,
            retrieval_pb2.LoadShardsRequest.FromString,
            retrieval_pb2.LoadShardsReply.SerializeToString,
        ),
        "UnloadShards": unary(
            servicer.UnloadShards,
            retrieval_pb2.UnloadShardsRequest.FromString,
            retrieval_pb2.UnloadShardsReply.SerializeToString,
        ),
        "Status": unary(
            servicer.Status,
            retrieval_pb2.RetrievalStatusRequest.FromString,
            retrieval_pb2.RetrievalStatusReply.SerializeToString,
        ),
        "Search": unary(servicer.Search),
        "SearchStream": grpc.stream_stream_rpc_method_handler(servicer.SearchStream),
    }


def _deadline_s(context: _Context) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _card_to_wire(backend: Backend) -> retrieval_pb2.CardStatus | None:
    """None: there is no card behind the backend."""
    if not isinstance(backend, HasCard):
        return None
    return retrieval_pb2.CardStatus(**asdict(backend.card))


def _loaded_to_wire(held: ShardSet) -> retrieval_pb2.LoadedSnapshot:
    return retrieval_pb2.LoadedSnapshot(
        snapshot=snapshot_to_wire(held.snapshot),
        shards=sorted(held.shards),
        rows=held.live_rows,
        resident_bytes=held.resident_bytes,
    )
