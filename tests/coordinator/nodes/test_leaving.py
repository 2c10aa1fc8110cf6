"""Nodes that leave stay as long as one of them works, and serve what only they can."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.leaving import LeaveConfig
from coordinator.nodes.pool import NodePool
from ragschema.errors import Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import EmbedPurpose, Role
from ragschema.wire.llm_pb2 import EngineStatus
from tests.coordinator.making import DIM, FAST, context
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer

NOWHERE = (RetrievalNodeConfig("ret-0", address="127.0.0.1:1"),)


async def test_nodes_that_leave_together_wait_for_each_other() -> None:
    fakes = [FakeLlm(name, DIM) for name in ("old-0", "old-1", "new-0")]
    fakes[1].roles = ("rerank",)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(FakeServer(fake)) for fake in fakes]
        nodes = [
            LlmNodeConfig(f.name, roles=f.roles, address=s.address)  # type: ignore[arg-type]
            for f, s in zip(fakes, servers, strict=True)
        ]
        before = RigConfig(llm_nodes=tuple(nodes[:2]), retrieval_nodes=NOWHERE)
        after = RigConfig(llm_nodes=tuple(nodes[2:]), retrieval_nodes=NOWHERE)
        metrics = Metrics()
        pool = NodePool(before, metrics, FAST, LeaveConfig(quiet_s=0.2))
        await pool.start()
        stack.push_async_callback(pool.close)
        assert pool.player(Role.RERANK, fingerprint=None, tried=frozenset()).name == "old-1"
        fakes[0].pause_s = 1.0
        call = asyncio.create_task(pool.embedder().embed(["a cat"], EmbedPurpose.QUERY, context()))
        await until(lambda: fakes[0].running == 1)
        await pool.follow(after, patience_s=5.0)
        assert pool.embedder().name == "new-0"
        await asyncio.sleep(0.4)
        assert {node.name for node in pool.leaving()} == {"old-0", "old-1"}, "one still works"
        assert pool.player(Role.RERANK, fingerprint=None, tried=frozenset()).name == "old-1"
        told = EngineStatus(prefix_query_tokens_total=100, prefix_hit_tokens_total=40)
        for name in ("old-0", "new-0"):
            metrics.engine_work.told(name, told)
        assert metrics.engine_work.prefix_tokens() == (200, 80)
        await call
        await until(lambda: pool.leaving() == ())
        assert metrics.engine_work.prefix_tokens() == (100, 40), "what it told is forgotten"
        with pytest.raises(Unavailable):
            pool.player(Role.RERANK, fingerprint=None, tried=frozenset())
