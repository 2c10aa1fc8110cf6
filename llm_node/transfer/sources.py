"""Connections of a decode node to the prefill nodes it pulls from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from llm_node.engine.engine import Engine
from llm_node.engine.kv import KvSnapshot
from llm_node.transfer.codec import SnapshotReader
from ragschema.errors import RagrigError, UpstreamError
from ragschema.types import CallContext
from ragschema.wire import kv_pb2, kv_pb2_grpc
from ragschema.wire.client import NodeClient

_MOST_SOURCES = 64
#: A slice is 1 MiB: links that need longer for one are too slow to pull over.
_STALL_S = 5.0


class Sources:
    """Pulls snapshots; one connection to each source, the least recent closed first.

    Args:
        stall_s: how long a source may say nothing in the middle of a pull.
    """

    def __init__(
        self,
        compression: kv_pb2.KvCompression.ValueType = kv_pb2.KV_COMPRESSION_NONE,
        stall_s: float = _STALL_S,
    ) -> None:
        self._compression = compression
        self._stall_s = stall_s
        self._clients: OrderedDict[str, NodeClient] = OrderedDict()

    async def pull(
        self, address: str, ticket: str, engine: Engine, context: CallContext
    ) -> KvSnapshot:
        """What a ticket stands for; gRPC's flow control keeps the sender from running ahead.

        Raises:
            UpstreamError: the source is away, hangs, or no longer holds it; field ``source``.
            CorruptData, IncompatibleRequest: what came cannot be used.
        """
        reader = SnapshotReader(engine.model.layout, engine.model.fingerprint, engine.max_tokens)
        client = await self._client(address)
        stub = cast("Any", kv_pb2_grpc.KvNodeStub(client.channel))
        request = kv_pb2.PullKvRequest(ticket=ticket, compression=self._compression)
        parts = cast("Any", client.stream(stub.PullKv, request, context))
        try:
            async with aclosing(self._unstalled(parts)) as arriving:
                async for part in arriving:
                    reader.take(part)
        except RagrigError as error:
            if error.field == "source":
                raise
            raise _not_pulled(address, error.message) from error
        except TimeoutError as error:
            raise _not_pulled(address, f"nothing came for {self._stall_s:g} s") from error
        return reader.finish()

    async def _unstalled(
        self, parts: AsyncGenerator[kv_pb2.KvPart, None]
    ) -> AsyncGenerator[kv_pb2.KvPart, None]:
        """The parts; raises TimeoutError when the next one does not come.

        A source that hangs keeps its connection, so nothing else would tell before the
        request's deadline, when it is too late to read the prompt elsewhere.
        """
        async with aclosing(parts):
            while True:
                # The timeout never spans a yield.
                async with asyncio.timeout(self._stall_s):
                    part = await anext(parts, None)
                if part is None:
                    return
                yield part

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))
        self._clients.clear()

    async def _client(self, address: str) -> NodeClient:
        client = self._clients.pop(address, None) or NodeClient(address, address)
        self._clients[address] = client
        if len(self._clients) > _MOST_SOURCES:
            _, oldest = self._clients.popitem(last=False)
            await oldest.close()
        return client


def _not_pulled(address: str, why: str) -> UpstreamError:
    return UpstreamError(
        f"the KV could not be pulled from {address}: {why}",
        field="source",
        hint="read the prompt again, at this node or another",
    )
