"""The rig's nodes: who may be used, who holds what, who is asked next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.pool import NodePool
from ragschema.errors import InvalidInput, Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from ragschema.types import EmbedPurpose, Role, SnapshotId
from tests.coordinator.making import (
    FAST,
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer

VECTORS = unit_vectors(12)


@asynccontextmanager
async def running_pool(rig: RigConfig) -> AsyncIterator[NodePool]:
    pool = NodePool(rig, Metrics(), FAST)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def health_of(stage: Stage, name: str) -> Any:
    return next(h for h in stage.runtime.pool.health() if h.name == name)


async def test_health_tells_what_each_node_is(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        await until(lambda: bool(health_of(stage, "ret-1").detail["loaded"]))
        llm, ret = health_of(stage, "llm-0"), health_of(stage, "ret-1")
        assert (llm.kind, llm.ready, llm.error) == ("llm", True, None)
        assert llm.address == stage.servers["llm-0"].address
        assert llm.latency_ms > 0
        assert [m["name"] for m in llm.detail["models"]] == ["fake-embedder", "fake-generator"]
        assert (ret.kind, ret.ready) == ("retrieval", True)
        assert ret.detail["loaded"] == [
            {
                "collection": "notes",
                "generation": 1,
                "shards": [1],
                "rows": 6,
                "resident_bytes": 0,
            }
        ]
        assert {m.role for m in stage.runtime.pool.models()} == {Role.EMBED, Role.GENERATE}


async def test_a_node_without_the_capability_is_refused_and_not_used(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))

    def prepare(_: Any, retrievals: Any) -> None:
        retrievals[1].capabilities = ("backend:faiss", "filter")
        retrievals[1].reset()

    async with running_stage(tmp_path, prepare=prepare) as stage:
        refused = health_of(stage, "ret-1")
        assert not refused.ready
        assert "backend:fpga" in refused.error
        assert health_of(stage, "ret-0").ready
        assert stage.retrievals[1].loaded == {}


async def test_a_node_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    llm = FakeLlm("llm-0", 4)
    llm.roles = ("embed", "generate", "backend:fpga", "filter")
    async with FakeServer(llm) as server:
        rig = RigConfig(
            llm_nodes=(LlmNodeConfig(name="llm-0", address=server.address),),
            retrieval_nodes=(RetrievalNodeConfig(name="ret-0", address=server.address),),
        )
        async with running_pool(rig) as pool:
            ready, mistaken = pool.health()
            assert ready.ready
            assert not mistaken.ready
            assert "no retrieval node" in str(mistaken.error)


async def test_a_node_of_another_protocol_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragschema.wire.serving.PROTOCOL_VERSION", 999)
    async with running_stage(tmp_path) as stage:
        for health in stage.runtime.pool.health():
            assert not health.ready
            assert "999" in str(health.error)
        with pytest.raises(Unavailable):
            stage.runtime.pool.embedder()


async def test_a_rig_without_addresses_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no address"):
        NodePool(RigConfig(), Metrics())


async def test_the_start_does_not_wait_for_nodes_that_are_away(tmp_path: Path) -> None:
    rig = RigConfig(
        data_dir=str(tmp_path),
        llm_nodes=(LlmNodeConfig(name="llm-0", address="127.0.0.1:1"),),
        retrieval_nodes=(RetrievalNodeConfig(name="ret-0", address="127.0.0.1:1"),),
    )
    async with running_pool(rig) as pool:
        assert [h.ready for h in pool.health()] == [False, False]
        assert all(h.error for h in pool.health())
        assert await pool.load(SnapshotId("notes", 1), 2)  # later, when a node is up


async def test_a_restart_is_noticed_and_the_shards_are_loaded_again(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        before = health_of(stage, "ret-0").instance_id
        await stage.kill("ret-0")
        await until(lambda: not health_of(stage, "ret-0").ready)
        assert health_of(stage, "ret-0").error
        await stage.restart("ret-0")
        await until(lambda: bool(stage.retrievals[0].loaded), "the reload")
        await until(lambda: health_of(stage, "ret-0").ready)
        assert health_of(stage, "ret-0").instance_id != before
        assert list(stage.retrievals[0].loaded) == [SnapshotId("notes", 1)]


async def test_a_restart_between_two_checks_is_noticed_too(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        stage.retrievals[0].reset()  # the connection holds, the memory is gone
        assert stage.retrievals[0].loaded == {}
        await until(lambda: bool(stage.retrievals[0].loaded), "the reload")


async def test_what_an_earlier_coordinator_left_is_unloaded(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        stranger = SnapshotId("gone", 7)
        stage.retrievals[0].reset()
        stage.retrievals[0].loaded[stranger] = {}
        await until(lambda: stranger not in stage.retrievals[0].loaded)
        await until(lambda: SnapshotId("notes", 1) in stage.retrievals[0].loaded)


async def test_shards_are_spread_over_groups_of_replicas(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, num_shards=5))
    async with running_stage(tmp_path, retrieval_nodes=4, replicas=2) as stage:
        held = [
            sorted(shard for shards in node.loaded.values() for shard in shards)
            for node in stage.retrievals
        ]
        assert held == [[0, 2, 4], [1, 3], [0, 2, 4], [1, 3]]


async def test_more_nodes_than_shards_leave_some_idle(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, num_shards=1))
    async with running_stage(tmp_path, retrieval_nodes=3) as stage:
        assert [bool(n.loaded) for n in stage.retrievals] == [True, False, False]
        assert len(stage.runtime.pool.routes(1)) == 1


async def test_the_least_busy_llm_node_is_chosen(tmp_path: Path) -> None:
    async with running_stage(tmp_path, llm_nodes=3) as stage:
        pool = stage.runtime.pool
        chosen = Counter(pool.generator().name for _ in range(9))
        assert set(chosen.values()) == {3}
        busy = pool.generator()
        busy.inflight += 1
        assert busy.name not in {pool.generator().name for _ in range(9)}
        tried = frozenset({"llm-0", "llm-1"})
        assert pool.generator(tried=tried).name == "llm-2"
        with pytest.raises(Unavailable):
            pool.generator(tried=tried | {"llm-2"})


async def test_a_node_with_one_role_is_asked_for_nothing_else(tmp_path: Path) -> None:
    llms = [FakeLlm("llm-0", 4), FakeLlm("llm-1", 4)]
    llms[0].roles, llms[1].roles = ("embed",), ("generate",)
    async with FakeServer(llms[0]) as one, FakeServer(llms[1]) as two:
        rig = RigConfig(
            llm_nodes=(
                LlmNodeConfig(name="llm-0", roles=("embed",), address=one.address),
                LlmNodeConfig(name="llm-1", roles=("generate",), address=two.address),
            ),
            retrieval_nodes=(RetrievalNodeConfig(name="ret-0", address="127.0.0.1:1"),),
        )
        async with running_pool(rig) as pool:
            assert pool.embedder().name == "llm-0"
            assert pool.generator().name == "llm-1"


async def test_closing_ends_calls_in_flight_as_unavailable(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        llm = stage.llms[0]
        llm.pause_s = 3600
        node = stage.runtime.pool.embedder()
        call = asyncio.create_task(node.embed(["x"], EmbedPurpose.QUERY, context()))
        await until(lambda: llm.running == 1)
        await node.client.close()
        with pytest.raises(Unavailable, match="llm-0"):
            await call
        assert not call.cancelled()
        assert node.inflight == 0
        await until(lambda: llm.running == 0)
        # Taken for lost, it is connected anew and used again.
        await until(lambda: node.ready)
        llm.pause_s = 0
        await node.embed(["x"], EmbedPurpose.QUERY, context())


async def test_a_caller_s_own_cancellation_stays_one(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        stage.llms[0].pause_s = 3600
        node = stage.runtime.pool.embedder()
        call = asyncio.create_task(node.embed(["x"], EmbedPurpose.QUERY, context()))
        await until(lambda: stage.llms[0].running == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert node.ready
