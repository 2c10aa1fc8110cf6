"""A running coordinator follows its rig file: nodes move, come and go, and no request is lost."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.following import following
from coordinator.supervisor.resolve import write_rig
from coordinator.types import SearchSpec
from ragschema.errors import IncompatibleRequest
from ragschema.rig import RetrievalNodeConfig, RigConfig
from tests.coordinator.making import (
    DIM,
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeRetrieval, FakeServer

VECTORS = unit_vectors(12)
SEARCH = SearchSpec("notes", 3, vector=VECTORS[0], min_coverage=1.0)
ASK = SearchSpec("notes", 3, text="What is well?", min_coverage=1.0)


class Asking:
    """Searches one after the other until it is stopped."""

    def __init__(self, stage: Stage) -> None:
        self.answered = 0
        self._stage = stage
        self._task = asyncio.create_task(self._ask())

    async def stop(self) -> None:
        """Raises what a search raised."""
        if not self._task.done():
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()

    async def _ask(self) -> None:
        while True:
            spec = (SEARCH, ASK)[self.answered % 2]
            outcome = await self._stage.runtime.pipeline.search(spec, context())
            assert outcome.coverage.fraction == 1.0
            self.answered += 1


async def started(stack: AsyncExitStack, node: FakeRetrieval | FakeLlm) -> FakeServer:
    return await stack.enter_async_context(FakeServer(node))


def addressed(rig: RigConfig, **addresses: str) -> RigConfig:
    """The rig with other addresses; ``ret_1`` stands for ret-1."""
    new = {name.replace("_", "-"): address for name, address in addresses.items()}

    def moved(node: object) -> object:
        return replace(node, address=new.get(node.name, node.address))  # type: ignore[type-var,attr-defined]

    return replace(
        rig,
        llm_nodes=tuple(map(moved, rig.llm_nodes)),  # type: ignore[arg-type]
        retrieval_nodes=tuple(map(moved, rig.retrieval_nodes)),  # type: ignore[arg-type]
    )


async def test_a_node_that_moved_is_followed(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    path = tmp_path / "rig.yaml"
    async with running_stage(tmp_path) as stage, AsyncExitStack() as stack:
        write_rig(path, stage.runtime.rig)
        async with following(stage.runtime, path, period_s=0.01):
            elsewhere = FakeRetrieval("ret-1", tmp_path)
            server = await started(stack, elsewhere)
            await stage.kill("ret-1")
            write_rig(path, addressed(stage.runtime.rig, ret_1=server.address))
            await until(lambda: bool(elsewhere.loaded), "the shard is loaded elsewhere")
            await until(lambda: stage.runtime.rig.retrieval_nodes[1].address == server.address)
            outcome = await stage.runtime.pipeline.search(SEARCH, context())
            assert outcome.coverage.fraction == 1.0
            assert elsewhere.batches


async def test_other_nodes_take_over_while_searches_go_on(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    path = tmp_path / "rig.yaml"
    async with running_stage(tmp_path) as stage, AsyncExitStack() as stack:
        write_rig(path, stage.runtime.rig)
        async with following(stage.runtime, path, period_s=0.01):
            new = [FakeRetrieval(f"ret-{i}", tmp_path) for i in range(3)]
            llm = FakeLlm("llm-0", DIM)
            servers = [await started(stack, node) for node in (*new, llm)]
            asking = Asking(stage)
            await until(lambda: asking.answered > 4)
            wider = replace(
                addressed(stage.runtime.rig, llm_0=servers[3].address),
                retrieval_nodes=tuple(
                    RetrievalNodeConfig(node.name, address=server.address)
                    for node, server in zip(new, servers, strict=False)
                ),
            )
            write_rig(path, wider)
            await until(lambda: bool(llm.embeds) and bool(new[0].batches))
            await until(lambda: stage.runtime.pool.leaving() == (), "the old ones are let go of")
            for name in stage.servers:
                await stage.kill(name)
            answered = asking.answered
            await until(lambda: asking.answered > answered + 4)
            await asking.stop()
            held = {tuple(snapshot) for node in new[:2] for snapshot in node.loaded.values()}
            assert held == {(0,), (1,)}, "two shards, which two of three nodes hold"
            assert new[2].loaded == {}


async def test_what_is_under_way_ends_where_it_is(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage, AsyncExitStack() as stack:
        server = await started(stack, FakeRetrieval("ret-0", tmp_path))
        stage.retrievals[0].pause_s = 0.3
        search = asyncio.create_task(stage.runtime.pipeline.search(SEARCH, context()))
        await until(lambda: bool(stage.retrievals[0].batches))
        await stage.runtime.follow(addressed(stage.runtime.rig, ret_0=server.address))
        (leaving,) = stage.runtime.pool.leaving()
        assert leaving.address == stage.servers["ret-0"].address
        assert (await search).coverage.fraction == 1.0
        await until(lambda: stage.runtime.pool.leaving() == ())


async def test_a_new_node_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path, retrieval_nodes=2, replicas=2) as stage:
        pool, rig = stage.runtime.pool, stage.runtime.rig
        await pool.follow(addressed(rig, ret_1="127.0.0.1:1"), patience_s=0.05)
        assert [node.ready for node in pool.health()] == [True, True, False]
        assert (
            await stage.runtime.pipeline.search(SEARCH, context())
        ).coverage.fraction == 1.0  # its replica answers


async def test_a_process_cannot_be_given_other_shards_while_it_runs(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path, retrieval_nodes=2) as stage:
        with pytest.raises(IncompatibleRequest, match="other shards while it runs"):
            await stage.runtime.follow(replace(stage.runtime.rig, replicas=2))
        assert (await stage.runtime.pipeline.search(SEARCH, context())).coverage.fraction == 1.0


async def test_a_file_that_cannot_be_followed_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    path = tmp_path / "rig.yaml"
    async with running_stage(tmp_path) as stage:
        rig = stage.runtime.rig
        async with following(stage.runtime, path, period_s=0.01):  # no file yet
            path.write_text("llm_nodes: 3\n")
            await until(lambda: "stay as they are" in caplog.text)
            assert stage.runtime.rig == rig
            os.unlink(path)
            own = replace(rig.coordinator, limits=replace(rig.coordinator.limits, max_inflight=7))
            write_rig(path, replace(rig, coordinator=own))
            await until(lambda: stage.runtime.rig.coordinator.limits.max_inflight == 7)
        assert (await stage.runtime.pipeline.search(SEARCH, context())).coverage.fraction == 1.0
