"""A coordinator starts and stops whole, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator.runtime import Runtime
from coordinator.types import SearchSpec
from ragschema.errors import InvalidInput, Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from tests.coordinator.making import Content, context, running_stage, unit_vectors, write_collection
from tests.coordinator.waiting import until

VECTORS = unit_vectors(8)


def ours() -> set[str]:
    """Tasks of the coordinator that are still alive."""
    return {
        str(t.get_coro())
        for t in asyncio.all_tasks()
        if t is not asyncio.current_task() and "coordinator" in str(t.get_coro())
    }


async def test_start_and_stop_leave_no_task(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        spec = SearchSpec("notes", 3, vector=VECTORS[0])
        assert len((await stage.runtime.pipeline.search(spec, context())).hits) == 3
        await stage.runtime.stop()
        assert ours() == set()
        with pytest.raises(Unavailable):
            await stage.runtime.pipeline.embed(("x",), "query", context())  # type: ignore[arg-type]
        await stage.runtime.stop()  # a second time does no harm


async def test_stopping_waits_for_a_search_under_way(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path) as stage:
        for node in stage.retrievals:
            node.pause_s = 0.1
        spec = SearchSpec("notes", 3, vector=VECTORS[0])
        search = asyncio.create_task(stage.runtime.pipeline.search(spec, context()))
        await until(lambda: bool(stage.retrievals[0].batches))
        await stage.runtime.stop()
        assert len((await search).hits) == 3


async def test_it_starts_without_any_node(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    rig = RigConfig(
        data_dir=str(tmp_path),
        llm_nodes=(LlmNodeConfig(name="llm-0", address="127.0.0.1:1"),),
        retrieval_nodes=(RetrievalNodeConfig(name="ret-0", address="127.0.0.1:1"),),
    )
    runtime = await Runtime.start(rig)
    assert runtime.catalog.names() == ["notes"]
    with pytest.raises(Unavailable):
        await runtime.pipeline.search(SearchSpec("notes", 3, vector=VECTORS[0]), context())
    await runtime.stop()
    assert ours() == set()


async def test_an_unresolved_rig_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no address"):
        await Runtime.start(RigConfig())
