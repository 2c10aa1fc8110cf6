"""The gRPC servicer of a retrieval node."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc

from ragschema.errors import PayloadTooLarge
from ragschema.types import SearchBatch, SearchResult
from ragschema.wire import common_pb2, retrieval_pb2, retrieval_pb2_grpc
from ragschema.wire.convert import snapshot_from_wire, snapshot_to_wire
from ragschema.wire.searches import result_to_wire, search_from_wire
from ragschema.wire.serving import DEFAULT_MAX_MESSAGE_BYTES, Greeter
from retrieval_node import flat, kernels
from retrieval_node.backends.base import Backend, Checkpoint
from retrieval_node.checks import MAX_K, check_search
from retrieval_node.engine import SearchEngine
from retrieval_node.loaded import LoadedSnapshots
from retrieval_node.shard import ShardSet
from retrieval_node.workers import SearchPool

SERVICE_NAME = "ragrig.wire.v1.RetrievalNode"

_Context = grpc.aio.ServicerContext[Any, Any]
_Answer = TypeVar("_Answer")
_RESULT_BYTES = 12
_MESSAGE_SLACK_BYTES = 4096


@dataclass(frozen=True)
class NodeConfig:
    """What a retrieval node is started with.

    Attributes:
        data_dir: collections lie in ``<data_dir>/collections``.
        threads: searches that run at once.
        max_waiting: searches that may queue behind them.
    """

    name: str
    data_dir: Path
    threads: int = 1
    max_waiting: int = 256
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES


def warm_up() -> None:
    """Compiles all kernels, so that no request has to wait for a compiler."""
    kernels.warm_up()
    flat.warm_up()


class RetrievalServicer(retrieval_pb2_grpc.RetrievalNodeServicer):
    """Implements ``proto/ragschema/wire/retrieval.proto``."""

    def __init__(self, config: NodeConfig, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._engine = SearchEngine(backend)
        self._snapshots = LoadedSnapshots(config.data_dir, self._engine)
        self._pool = SearchPool(config.threads, config.max_waiting)
        # Loads are rare and long: one thread of their own keeps searches going.
        self._loader = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="load")
        capabilities = (f"backend:{backend.name}", f"device:{backend.device}")
        self._greeter = Greeter(
            config.name, "retrieval", (*capabilities, "filter", "refine", "exact", "ivfpq")
        )
        self._searches = 0
        self._queries = 0
        self._codes = 0

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
        # In the loader's thread: freeing memory may take a while.
        was_loaded = await self._in_loader(lambda: self._snapshots.unload(snapshot))
        return retrieval_pb2.UnloadShardsReply(was_loaded=was_loaded)

    async def _in_loader(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)

    async def Status(
        self, request: retrieval_pb2.RetrievalStatusRequest, context: _Context
    ) -> retrieval_pb2.RetrievalStatusReply:
        return retrieval_pb2.RetrievalStatusReply(
            backend=self._backend.name,
            device=self._backend.device,
            loaded=[_loaded_to_wire(held) for held in self._snapshots.all()],
            running=self._pool.running,
            waiting=self._pool.waiting,
            searches_total=self._searches,
            queries_total=self._queries,
            codes_scanned_total=self._codes,
            uptime_s=self._greeter.uptime_s(),
        )

    async def Search(
        self, request: retrieval_pb2.SearchRequest, context: _Context
    ) -> retrieval_pb2.SearchReply:
        batch = search_from_wire(request, MAX_K)
        shard_set = self._snapshots.get(batch.snapshot)
        check_search(shard_set, batch)
        self._check_reply_size(batch)

        def work(checkpoint: Checkpoint) -> SearchResult:
            return self._engine.search(shard_set, batch, checkpoint)

        timed = await self._pool.run(work, _deadline_s(context))
        stats = replace(timed.answer.stats, queue_us=timed.queue_us)
        self._searches += 1
        self._queries += len(batch.queries)
        self._codes += stats.codes_scanned
        return result_to_wire(replace(timed.answer, stats=stats))

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


def _deadline_s(context: _Context) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _loaded_to_wire(held: ShardSet) -> retrieval_pb2.LoadedSnapshot:
    return retrieval_pb2.LoadedSnapshot(
        snapshot=snapshot_to_wire(held.snapshot),
        shards=sorted(held.shards),
        rows=held.live_rows,
        resident_bytes=held.resident_bytes,
    )
