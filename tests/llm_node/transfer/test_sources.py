from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
import torch

from llm_node.engine.kv import KvLayout, KvSnapshot, LayerShape
from llm_node.transfer.codec import to_parts
from llm_node.transfer.sources import Sources
from ragschema.errors import UpstreamError
from ragschema.types import CallContext
from ragschema.wire import kv_pb2, kv_pb2_grpc

SHAPE = LayerShape(2, 8, 8)
ENGINE = cast(
    "Any",
    SimpleNamespace(
        model=SimpleNamespace(layout=KvLayout((SHAPE,), torch.float32), fingerprint="m"),
        max_tokens=64,
    ),
)


def snapshot() -> KvSnapshot:
    keys = torch.arange(9 * 2 * 8, dtype=torch.float32).reshape(9, 2, 8)
    return KvSnapshot(tuple(range(10)), 9, (keys,), (-keys,), torch.float32, "m")


class Node(kv_pb2_grpc.KvNodeServicer):
    """A prefill node that hangs behind so many parts; None: it never does."""

    def __init__(self, hangs_behind: int | None) -> None:
        self._hangs_behind = hangs_behind
        self.left = asyncio.Event()

    async def PullKv(
        self, request: kv_pb2.PullKvRequest, context: Any
    ) -> AsyncIterator[kv_pb2.KvPart]:
        try:
            for number, part in enumerate(to_parts(snapshot())):
                if number == self._hangs_behind:
                    await asyncio.Event().wait()
                yield part
        finally:
            self.left.set()


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[str]:
    server = grpc.aio.server()
    kv_pb2_grpc.add_KvNodeServicer_to_server(node, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("parts", [0, 1, 2])
async def test_a_source_that_hangs_is_given_up(parts: int) -> None:
    node = Node(parts)
    sources = Sources(stall_s=0.2)
    async with serving(node) as address:
        with pytest.raises(UpstreamError, match=r"nothing came for 0\.2 s") as caught:
            await sources.pull(address, "ticket", ENGINE, CallContext.start(3600))
        # What makes the coordinator read the prompt again.
        assert caught.value.field == "source"
        assert isinstance(caught.value.__cause__, TimeoutError)
        await node.left.wait()
        await sources.close()


async def test_a_source_that_goes_on_is_waited_for() -> None:
    sources = Sources(stall_s=60)
    async with serving(Node(None)) as address:
        for _ in range(2):
            got = await sources.pull(address, "ticket", ENGINE, CallContext.start(60))
            assert got.token_ids == snapshot().token_ids
            assert torch.equal(got.keys[0], snapshot().keys[0])
        await sources.close()


async def test_a_source_that_is_away_says_so() -> None:
    sources = Sources()
    with pytest.raises(UpstreamError, match=r"could not be pulled from 127\.0\.0\.1:1") as caught:
        await sources.pull("127.0.0.1:1", "ticket", ENGINE, CallContext.start(60))
    assert caught.value.field == "source"
    await sources.close()
