"""A step in load on a rig of real, small processes: better processes take over, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.deploy import rig_for
from coordinator.replan.exchange import Answered, Exchange, Settled
from coordinator.replan.settings import ReplanSettings, read_settings
from coordinator.supervisor.backoff import BackoffConfig
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import NodeState, SupervisionPolicy
from coordinator.supervisor.rolling import Roller
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.here import this_machine
from ragschema.planner.plan_file import read_plan
from ragschema.rig import CoordinatorConfig, LlmNodeConfig, RetrievalNodeConfig, RigConfig, load_rig
from tests.coordinator.making import Content, unit_vectors, write_collection
from tests.coordinator.replan.planned import Files, files
from tests.coordinator.supervisor.helpers import alive, ignore

ROOT = Path(__file__).resolve().parents[3]
FAKE_NODE = (sys.executable, "-m", "tests.coordinator.replan.fake_node")
QUESTION = {"collection": "cats", "question": "what does a cat do"}
two_cores = pytest.mark.skipif(this_machine().cores < 2, reason="the better plan has two cores")


@dataclass
class Rig:
    """A supervised rig whose LLM and retrieval nodes are fake, and whose coordinator is not."""

    supervisor: Supervisor
    client: httpx.AsyncClient
    answers: Counter[str] = field(default_factory=Counter)

    def llm_nodes(self) -> dict[str, NodeState]:
        return {v.name: v.state for v in self.supervisor.views() if v.kind == "llm"}

    async def replan(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get("/v1/status")).json()["replan"]
        return found

    async def until(self, condition: Callable[[], Any], timeout_s: float = 120.0) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not (await condition() if asyncio.iscoroutinefunction(condition) else condition()):
            assert time.monotonic() < give_up_s, await self.replan()
            await asyncio.sleep(0.1)

    async def ask(self) -> None:
        """Asks again and again, until it is cancelled between two questions."""
        while True:
            try:
                reply = await self.client.post("/v1/query", json=QUESTION)
                whole = reply.json().get("answer") == "A cat sits [1]."
                said = "whole" if whole else reply.text
            except httpx.HTTPError as error:
                said = repr(error)
            self.answers[said] += 1

    @asynccontextmanager
    async def load(self, clients: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.ask()) for _ in range(clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def base_rig(data_dir: Path) -> RigConfig:
    return RigConfig(
        data_dir=str(data_dir),
        coordinator=CoordinatorConfig(port=0),
        llm_nodes=(LlmNodeConfig("writer", generator="hf:/models/writer"),),
        retrieval_nodes=(RetrievalNodeConfig("ret"),),
    )


@asynccontextmanager
async def running(made: Files, settings: ReplanSettings, **env: str) -> AsyncIterator[Rig]:
    data_dir = made.folder / "data"
    write_collection(data_dir, "cats", Content(unit_vectors(6), num_shards=1))
    base, cores = base_rig(data_dir), sorted(os.sched_getaffinity(0))
    settings = replace(settings, folder=str(data_dir / "run" / "replan"))
    options = SupervisorOptions(
        programs=Programs(llm=FAKE_NODE, retrieval=FAKE_NODE),
        policy=SupervisionPolicy(
            backoff=BackoffConfig(first_s=0.05), max_failed_starts=2, grace_s=3.0
        ),
        replan=settings,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    async with Supervisor(rig_for(read_plan(made.plan), base, cores), ignore, options) as started:
        readiness = await started.start()
        assert readiness.ready, readiness.problem
        async with (
            Roller(started, settings, base, cores),
            httpx.AsyncClient(base_url=readiness.url, timeout=60.0, trust_env=False) as client,
        ):
            yield Rig(started, client)


@two_cores
async def test_a_step_in_load_brings_better_processes_and_loses_no_request(tmp_path: Path) -> None:
    made = files(tmp_path, this_machine())
    async with running(made, made.settings()) as rig:
        before = await rig.replan()
        assert (before["mode"], before["last"]) == ("auto", None)
        async with rig.load(8):

            async def applied() -> bool:
                return bool((await rig.replan())["changes"].get("processes"))

            await rig.until(applied)
            await rig.until(lambda: set(rig.llm_nodes()) == {"llm-0-1"})
            await asyncio.sleep(0.5)
        assert set(rig.answers) == {"whole"}
        last = (await rig.replan())["last"]
        assert last["applied"]
        assert "planned for" in last["reason"]
        assert last["gain"] >= 1.3
        resolved = load_rig(rig.supervisor.run.resolved_rig)
        (node,) = resolved.llm_nodes
        assert (node.name, node.threads) == ("llm-0-1", 2)
        assert resolved.coordinator.stages.generate.max_concurrent >= node.engine.max_running
        # A coordinator that starts anew watches the plan that runs.
        assert read_settings(rig.supervisor.run.replan_file).plan == last["plan"]


async def answered(exchange: Exchange, plan: Path, deployed: Path) -> Answered:
    asked = exchange.ask(plan, deployed)
    found = await exchange.until(asked, frozenset({"refused", "done", "up"}), 60.0)
    assert found is not None
    return found


@two_cores
async def test_what_cannot_be_deployed_leaves_the_rig_as_it_was(tmp_path: Path) -> None:
    made = files(tmp_path, this_machine())
    text = made.plan.read_text()
    wider, elsewhere = tmp_path / "wider.yaml", tmp_path / "elsewhere.yaml"
    wider.write_text(text.replace("accelerators: 1", "accelerators: 2"))
    elsewhere.write_text(text.replace("hosts: 1", "hosts: 2"))
    settings = made.settings(dwell_s=3600.0)
    async with running(made, settings, FAKE_NODE_FAILS="llm-0-1") as rig:
        exchange = Exchange(rig.supervisor.run.replan_dir)
        resolved = load_rig(rig.supervisor.run.resolved_rig)
        async with rig.load(2):
            for plan, said in ((elsewhere, "shards do not move"), (wider, "does not start")):
                found = await answered(exchange, plan, made.plan)
                assert (found.state, said in found.why) == ("refused", True), found
                assert rig.llm_nodes() == {"llm-0": NodeState.READY}
                assert load_rig(rig.supervisor.run.resolved_rig) == resolved
        assert set(rig.answers) <= {"whole"}


def uses(rig: Rig, names: set[str]) -> Callable[[], Any]:
    """Whether the coordinator's LLM nodes are these alone."""

    async def asked() -> bool:
        status = (await rig.client.get("/v1/status")).json()
        found = {node["name"] for node in status["nodes"] if node["kind"] == "llm"}
        return found == names and not status["leaving"]

    return asked


@two_cores
async def test_a_coordinator_that_cannot_go_over_leaves_the_rig_as_it_was(tmp_path: Path) -> None:
    """Batches that were taken over before stay, too."""
    made = files(tmp_path, this_machine())
    text = made.plan.read_text()
    wider, deployed = tmp_path / "wider.yaml", tmp_path / "deployed.yaml"
    wider.write_text(text.replace("accelerators: 1", "accelerators: 2"))
    deployed.write_text(
        text.replace("name: retrieval\n    batch: 1", "name: retrieval\n    batch: 8")
    )
    assert read_plan(deployed).stages["retrieval"][1] == 8
    async with running(made, made.settings(dwell_s=3600.0)) as rig:
        exchange = Exchange(rig.supervisor.run.replan_dir)
        async with rig.load(2):
            asked = exchange.ask(wider, deployed)
            found = await exchange.until(asked, frozenset({"up"}), 60.0)
            assert found is not None
            assert set(rig.llm_nodes()) == {"llm-0", *found.nodes}
            await rig.until(uses(rig, set(found.nodes)))
            exchange.settle(Settled(asked, ok=False))
            await rig.until(uses(rig, {"llm-0"}))
            assert set(rig.llm_nodes()) == {"llm-0", *found.nodes}, "they end what they have"
            exchange.settle(Settled(asked, ok=False, back=True))
            refused = await exchange.until(asked, frozenset({"refused"}), 60.0)
            assert refused is not None
            assert "did not go over" in refused.why
            await rig.until(lambda: rig.llm_nodes() == {"llm-0": NodeState.READY})
        resolved = load_rig(rig.supervisor.run.resolved_rig)
        assert [node.name for node in resolved.llm_nodes] == ["llm-0"]
        assert resolved.coordinator.stages.retrieve.max_batch == 8
        assert set(rig.answers) <= {"whole"}


@two_cores
async def test_a_rig_that_stops_amid_a_change_leaves_no_process(tmp_path: Path) -> None:
    made = files(tmp_path, this_machine())
    wider = tmp_path / "wider.yaml"
    wider.write_text(made.plan.read_text().replace("accelerators: 1", "accelerators: 2"))
    async with running(made, made.settings(dwell_s=3600.0)) as rig:
        exchange = Exchange(rig.supervisor.run.replan_dir)
        found = await exchange.until(
            exchange.ask(wider, made.plan), frozenset({"up", "refused"}), 60.0
        )
        assert found is not None
        assert found.state == "up"
        pids = [view.pid for view in rig.supervisor.views() if view.pid is not None]
        assert len(pids) == 4, "a coordinator, a retrieval node, and both generations"
    assert not [pid for pid in pids if alive(pid)]
