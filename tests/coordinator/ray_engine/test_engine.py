"""An engine whose cluster and coordinator are stand-ins: what it publishes, and what it undoes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.ray_engine.deployment import RayOptions
from coordinator.ray_engine.engine import RayEngine
from coordinator.supervisor.node import NodeState, NodeView
from ragschema.errors import DeadlineExceeded, IncompatibleRequest, Unavailable
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig, load_rig
from tests.coordinator.ray_engine.test_deployment import QUICK, FakeRay, view
from tests.coordinator.supervisor.helpers import options

FAILED = NodeView("llm", "llm", NodeState.FAILED, None, None, 0, "no model in /nowhere")


def rig(folder: Path) -> RigConfig:
    plain = RigConfig(
        data_dir=str(folder),
        llm_nodes=(LlmNodeConfig("llm"),),
        retrieval_nodes=(RetrievalNodeConfig("ret"),),
    )
    return replace(plain, coordinator=replace(plain.coordinator, port=0))


def engine(ray: FakeRay, folder: Path, told: list[NodeView], **more: Any) -> RayEngine:
    settings: RayOptions = replace(QUICK, **more)
    return RayEngine(ray, rig(folder), told.append, settings, options())


def published(folder: Path) -> list[str | None]:
    found = load_rig(folder / "run" / "rig.resolved.yaml")
    return [node.address for node in (*found.llm_nodes, *found.retrieval_nodes)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_addresses_are_published_and_followed(tmp_path: Path) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    async with engine(ray, tmp_path, told) as running:
        readiness = await running.start()
        assert readiness.ready
        assert published(tmp_path) == ["h:1", "h:2"]
        watching = asyncio.create_task(running.watch())
        ray.says[1] = None
        await until(lambda: running.views()[2].state is NodeState.BACKING_OFF)
        assert published(tmp_path) == ["h:1", "h:2"]
        ray.says[1] = view("ret", "g:9")
        await until(lambda: published(tmp_path) == ["h:1", "g:9"])
        state = running.supervisor.run.read_state()
        assert state is not None
        assert {n.name: n.address for n in state.nodes}["ret"] == "g:9"
        assert readiness.url.endswith(
            str(load_rig(running.supervisor.run.resolved_rig).coordinator.port)
        )
        watching.cancel()
    assert len(ray.killed) == len(ray.actors) == 2
    assert ray.groups == 0


async def test_a_coordinator_that_does_not_go_over_leaves_all_as_it_was(tmp_path: Path) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    ray.says += [view("llm", "n:3"), view("ret", "n:4")]
    async with engine(ray, tmp_path, told, follow_s=0.2) as running:
        await running.start()
        with pytest.raises(DeadlineExceeded, match=r"did not go over .* within 0\.2 s"):
            await running.move_to(rig(tmp_path))
        assert published(tmp_path) == ["h:1", "h:2"]
        assert [v.address for v in running.views()[1:]] == ["h:1", "h:2"]
        assert ray.killed == ray.actors[2:]
        assert ray.groups == 1


async def test_it_goes_over_and_ends_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    ray.says += [view("llm", "n:3"), view("ret", "n:4")]
    leaving: list[list[str]] = [["old"], ["old"], []]

    async def status(_self: RayEngine) -> dict[str, Any]:
        """Of a coordinator that reads what is published, and lets go after some time."""
        names = zip(("llm", "ret"), published(tmp_path), strict=True)
        nodes = [{"name": name, "address": address} for name, address in names]
        return {"nodes": nodes, "leaving": leaving.pop(0) if len(leaving) > 1 else leaving[0]}

    monkeypatch.setattr(RayEngine, "_status", status)
    async with engine(ray, tmp_path, told) as running:
        await running.start()
        await running.move_to(rig(tmp_path))
        assert leaving == [[]], "it waited until nothing was under way"
        assert published(tmp_path) == ["n:3", "n:4"]
        assert ray.killed == ray.actors[:2]
    assert ray.killed == ray.actors


@pytest.mark.parametrize("threads", [9, 1])
async def test_another_rig_that_cannot_run_changes_nothing(tmp_path: Path, threads: int) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    ray.says += [FAILED, view("ret", "n:4")]
    other = replace(rig(tmp_path), llm_nodes=(LlmNodeConfig("llm", threads=threads),))
    async with engine(ray, tmp_path, told) as running:
        await running.start()
        with pytest.raises(IncompatibleRequest if threads == 9 else Unavailable):
            await running.move_to(other)
        assert published(tmp_path) == ["h:1", "h:2"]
        assert not set(ray.killed) & set(ray.actors[:2])


async def test_what_runs_is_followed_while_another_rig_starts(tmp_path: Path) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    ray.says += [view("llm", "n:3"), None]
    async with engine(ray, tmp_path, told, start_s=1.0) as running:
        await running.start()
        watching = asyncio.create_task(running.watch())
        moving = asyncio.create_task(running.move_to(rig(tmp_path)))
        await until(lambda: len(ray.actors) == 4)
        ray.says[1] = view("ret", "g:9")
        await until(lambda: published(tmp_path) == ["h:1", "g:9"])
        with pytest.raises(Unavailable, match="ret did not start within 1 s"):
            await moving
        watching.cancel()


async def test_a_node_that_does_not_start_ends_the_others(tmp_path: Path) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    ray.says[0] = FAILED
    async with engine(ray, tmp_path, told) as running:
        with pytest.raises(Unavailable, match="no model in /nowhere"):
            await running.start()
        assert (len(ray.killed), ray.groups) == (2, 0)
        assert not (tmp_path / "run" / "rig.resolved.yaml").exists()


async def test_hurry_kills_at_once(tmp_path: Path) -> None:
    ray, told = FakeRay(), []  # type: tuple[FakeRay, list[NodeView]]
    async with engine(ray, tmp_path, told) as running:
        await running.start()
        running.hurry()
        assert len(ray.killed) == 2
    assert [actor.stops for actor in ray.actors] == [0, 0]
