"""Better batches on a running coordinator: its real batchers, and questions under way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.replan.live import LiveRig, replanned
from coordinator.replan.proposal import Ask, Option, Proposal
from coordinator.types import DoneEvent, QuerySpec, SearchSpec
from ragschema.errors import IncompatibleRequest
from ragschema.planner.plan_file import read_plan
from ragschema.rig import BatchConfig
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    with_stages,
    write_collection,
)
from tests.coordinator.replan.planned import Files, files

ONE = BatchConfig(max_batch=1, max_concurrent=1)


@pytest.fixture
def made(tmp_path: Path) -> Files:
    return files(tmp_path)


def with_batch(made: Files, batch: int, decode: int = 8) -> Path:
    """The plan with another batch of scans, and of answers."""
    path = made.folder / f"batch-{batch}-{decode}.yaml"
    document = yaml.safe_load(made.plan.read_text())
    stages = [stage for group in document["groups"] for stage in group["stages"]]
    sizes = {"retrieval": batch, "decode": decode}
    for stage in stages:
        stage["batch"] = sizes.get(stage["name"], stage["batch"])
    path.write_text(yaml.safe_dump(document))
    return path


async def ask(stage: Stage) -> DoneEvent:
    spec = QuerySpec(SearchSpec("cats", text="what does a cat do", k=1), "what does a cat do")
    events = [e async for e in stage.runtime.pipeline.query(spec, context(60.0))]
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


async def asked(stage: Stage, clients: int, stop: asyncio.Event) -> int:
    """So many clients until ``stop``; how many questions were answered whole."""

    async def client() -> int:
        count = 0
        while not stop.is_set():
            assert (await ask(stage)).answer == "All is well [1]."
            count += 1
        return count

    return sum(await asyncio.gather(*(client() for _ in range(clients))))


def prepare(llms: list[Any], retrievals: list[Any]) -> None:
    for node in retrievals:
        node.pause_s = 0.02


def batches_of(stage: Stage) -> list[int]:
    return [len(batch.queries) for node in stage.retrievals for batch in node.batches]


async def test_a_step_in_load_changes_batches_at_once_and_loses_no_request(
    made: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    data_dir = made.folder / "data"
    write_collection(data_dir, "cats", Content(unit_vectors(6), num_shards=1))
    plan = with_batch(made, 16, decode=32)

    async def planner(wanted: Ask, limit_s: float) -> Proposal:
        assert wanted.observed.arrivals_per_s > 1
        return Proposal(2.0, {}, Option(str(plan), 0.5, {}), None)

    config = with_stages(retrieve=ONE)
    async with running_stage(
        data_dir, retrieval_nodes=1, coordinator=config, prepare=prepare
    ) as stage:
        settings = made.settings(window_s=1.0, dwell_s=0.3)
        async with replanned(stage.runtime, settings, planner):
            stop = asyncio.Event()
            clients = asyncio.create_task(asked(stage, 24, stop))
            replanner = stage.runtime.replanner
            assert replanner is not None
            async with asyncio.timeout(60):
                while not replanner.view.applied:
                    await asyncio.sleep(0.02)
            last = replanner.view.last
            assert batches_of(stage)[:10] == [1] * 10
            for node in stage.retrievals:
                node.batches.clear()
            await asyncio.sleep(0.5)
            stop.set()
            assert await clients > 24
        assert max(batches_of(stage)) > 4
        assert last is not None
        assert last.changes[0] == "retrieve.max_batch 1 -> 16"
        assert any(c.startswith("generate.max_concurrent 8 -> 3") for c in last.changes)
        assert "retrieve.max_batch 1 -> 16" in caplog.text
        assert "arrivals per s" in caplog.text
        assert stage.runtime.rig.coordinator.stages.retrieve.max_batch == 16
        text = stage.runtime.metrics.render().decode()
        assert 'ragrig_replan_changes_total{kind="batches"} 1.0' in text


async def test_batches_go_back_and_forth_under_load(made: Files) -> None:
    data_dir = made.folder / "data"
    write_collection(data_dir, "cats", Content(unit_vectors(6), num_shards=1))
    plans = [read_plan(with_batch(made, *sizes)) for sizes in ((1, 1), (16, 32), (4, 2))]
    async with running_stage(data_dir, retrieval_nodes=1, prepare=prepare) as stage:
        rig, stop = LiveRig(stage.runtime, made.folder), asyncio.Event()
        clients = asyncio.create_task(asked(stage, 12, stop))
        for turn in range(30):
            await rig.use_batches(plans[turn % 3])
            await asyncio.sleep(0.03)
        stop.set()
        assert await clients > 12
        assert rig.changes(plans[29 % 3]) == ()
        assert rig.changes(plans[0])[0] == "retrieve.max_batch 4 -> 1"


async def test_without_a_supervisor_there_are_no_other_processes(
    made: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.replan.live._TAKE_S", 0.2)
    data_dir = made.folder / "data"
    write_collection(data_dir, "cats", Content(unit_vectors(6), num_shards=1))
    async with running_stage(data_dir, retrieval_nodes=1) as stage:
        before = stage.runtime.rig
        with pytest.raises(IncompatibleRequest, match="nobody here starts"):
            await LiveRig(stage.runtime, made.folder).use_processes(made.plan, made.plan)
        assert stage.runtime.rig == before


async def test_nobody_watches_unless_it_is_asked_for(made: Files) -> None:
    async with running_stage(made.folder / "data", retrieval_nodes=1) as stage:
        async with replanned(stage.runtime, None):
            assert stage.runtime.replanner is None
        assert "ragrig_replan" not in stage.runtime.metrics.render().decode()
