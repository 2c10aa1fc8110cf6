"""Nodes that hang, fail to load, or misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.retrieval import RetrievalNode
from coordinator.nodes.watched import WatchConfig, is_callers_fault, is_loss
from ragschema import errors as e
from ragschema.rig import RetrievalNodeConfig
from ragschema.types import SearchBatch, SnapshotId
from ragschema.wire import retrieval_pb2
from ragschema.wire.convert import tensor_to_wire
from tests.coordinator.making import FAST, Content, context, unit_vectors, write_collection
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeRetrieval, FakeServer

VECTORS = unit_vectors(6)
SNAPSHOT = SnapshotId("notes", 1)
BATCH = SearchBatch(SNAPSHOT, (0, 1), VECTORS[:2], None, 3)


class Hanging(FakeRetrieval):
    """Stops answering anything while it is told to, like a stopped process."""

    hangs = False

    async def Hello(self, request: Any, context: Any) -> Any:
        while self.hangs:
            await asyncio.sleep(0.01)
        return await super().Hello(request, context)


class Misfit(FakeRetrieval):
    """Answers with fewer rows than were asked for."""

    async def Search(self, request: Any, context: Any) -> Any:
        return retrieval_pb2.SearchReply(
            distances=tensor_to_wire(np.zeros((1, 1), np.float32)),
            row_ids=tensor_to_wire(np.zeros((1, 1), np.int64)),
            counts=tensor_to_wire(np.zeros(1, np.int32)),
        )


@asynccontextmanager
async def connected(fake: FakeRetrieval, watch: WatchConfig = FAST) -> AsyncIterator[RetrievalNode]:
    async with FakeServer(fake) as server:
        config = RetrievalNodeConfig(name=fake.name)
        node = RetrievalNode(config, server.address, Metrics(), watch)
        node.start()
        try:
            await node.first_check()
            yield node
        finally:
            await node.close()


async def test_a_hanging_node_is_given_up_and_its_calls_end(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    fake = Hanging("ret-0", tmp_path)
    async with connected(fake, replace(FAST, timeout_s=0.2, patience=2)) as node:
        assert await node.want(SNAPSHOT, (0, 1))
        fake.pause_s = 3600
        call = asyncio.create_task(node.search(BATCH, context(60)))
        await until(lambda: len(fake.batches) == 1)
        fake.hangs = True
        with pytest.raises(e.Unavailable):
            await call
        assert not node.can_search(SNAPSHOT)
        fake.hangs = False
        fake.pause_s = 0
        # It kept its memory, so nothing needs to be loaded again.
        await until(lambda: node.can_search(SNAPSHOT))
        assert (await node.search(BATCH, context())).counts.tolist() == [3, 3]


async def test_one_slow_check_is_no_loss(tmp_path: Path) -> None:
    fake = Hanging("ret-0", tmp_path)
    async with connected(fake, replace(FAST, timeout_s=0.1, patience=1000)) as node:
        client = node.client
        fake.hangs = True
        await asyncio.sleep(0.5)
        fake.hangs = False
        assert node.ready
        assert node.client is client


async def test_a_load_that_fails_is_shown_and_tried_again(tmp_path: Path) -> None:
    fake = FakeRetrieval("ret-0", tmp_path)
    async with connected(fake) as node:
        assert not await node.want(SNAPSHOT, (0, 1))  # there is nothing on disk yet
        health = node.health()
        assert health.ready
        assert "cannot load notes" in str(health.error)
        write_collection(tmp_path, "notes", Content(VECTORS))
        await until(lambda: node.can_search(SNAPSHOT))
        assert node.health().error is None


async def test_a_dropped_snapshot_is_unloaded_even_by_a_node_that_was_away(
    tmp_path: Path,
) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    fake = FakeRetrieval("ret-0", tmp_path)
    async with connected(fake) as node:
        await node.want(SNAPSHOT, (0, 1))
        assert list(fake.loaded) == [SNAPSHOT]
        node.failed(e.Unavailable("the connection broke"))
        assert not node.ready
        await node.drop(SNAPSHOT)
        assert not node.can_search(SNAPSHOT)
        await until(lambda: not fake.loaded)


async def test_an_answer_that_does_not_fit_is_an_upstream_error(tmp_path: Path) -> None:
    async with connected(Misfit("ret-0", tmp_path)) as node:
        with pytest.raises(e.UpstreamError, match="ret-0"):
            await node.search(BATCH, context())
        assert node.inflight == 0


@pytest.mark.parametrize("error", e.all_error_types().values())
def test_every_error_is_either_the_caller_s_or_the_node_s(error: type[e.RagrigError]) -> None:
    raised = error("x")
    assert not (is_loss(raised) and is_callers_fault(raised))
    assert is_loss(raised) == isinstance(raised, (e.Unavailable, e.Cancelled))
