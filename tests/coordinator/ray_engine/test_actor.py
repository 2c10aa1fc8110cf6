"""The actor without Ray: an order in, a process kept running, plain data out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from coordinator.ray_engine.actor import NodeActor, Order, order_from_json, order_of, view_from_dict
from coordinator.supervisor.backoff import BackoffConfig
from coordinator.supervisor.commands import Programs
from coordinator.supervisor.node import NodeState, NodeView, SupervisionPolicy
from coordinator.supervisor.rundir import RunDir
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig
from tests.coordinator.supervisor.helpers import STAND_IN

HOST = "127.0.0.1"
POLICY = SupervisionPolicy(backoff=BackoffConfig(first_s=0.05), max_failed_starts=2, grace_s=2.0)


def order(folder: Path, name: str = "llm-0") -> Order:
    rig = RigConfig(
        data_dir=str(folder),
        llm_nodes=(LlmNodeConfig("llm-0", roles=("embed", "index_scan", "generate"), kv_mib=9),),
        retrieval_nodes=(RetrievalNodeConfig("ret-0", backend="simd"),),
    )
    return order_of(rig, name, f"1-{name}", POLICY, Programs(STAND_IN, STAND_IN, STAND_IN))


def test_an_order_is_plain_data_and_reads_back(tmp_path: Path) -> None:
    for name in ("llm-0", "ret-0"):
        told = order(tmp_path, name)
        text = told.to_json()
        assert json.loads(text)["node"]["name"] == name
        assert json.loads(order_from_json(text).to_json()) == json.loads(text)
    bare = order_of(RigConfig(), "ret-1", "f", POLICY, None)
    assert order_from_json(bare.to_json()).programs is None


def test_a_view_is_plain_data_and_reads_back() -> None:
    view = NodeView("a", "llm", NodeState.BACKING_OFF, "h:1", 7, 2, "why")
    raw = {**asdict(view), "state": "restarting"}
    assert view_from_dict(json.loads(json.dumps(raw))) == view


async def view(actor: NodeActor) -> NodeView:
    return view_from_dict(json.loads(json.dumps(await actor.view())))


async def seen(actor: NodeActor, wanted: Callable[[NodeView], bool]) -> NodeView:
    async with asyncio.timeout(30):
        while not wanted(found := await view(actor)):
            await asyncio.sleep(0.02)
    return found


def is_ready(found: NodeView) -> bool:
    return found.state is NodeState.READY


async def test_a_node_is_started_restarted_and_stopped(tmp_path: Path) -> None:
    actor = NodeActor(order(tmp_path).to_json(), HOST, False)
    first = await seen(actor, is_ready)
    assert first.pid is not None
    command = psutil.Process(first.pid).cmdline()
    assert command[command.index("--data") + 1] == str(tmp_path), "the rig's, not the actor's"
    assert command[command.index("--parent-pid") + 1] == str(os.getpid())
    assert command[command.index("--kv-mib") + 1] == "9"
    psutil.Process(first.pid).kill()
    second = await seen(actor, lambda v: is_ready(v) and v.pid != first.pid)
    assert (second.address, second.restarts) == (first.address, 1)
    await actor.stop()
    assert (await view(actor)).state is NodeState.STOPPED
    assert not psutil.pid_exists(second.pid or 0)
    logs = tmp_path / "run" / "ray" / f"1-llm-0@{HOST}" / "logs"
    assert "llm-0 serves" in (logs / "llm-0.log").read_text()


async def test_a_node_that_does_not_start_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("STAND_IN_FAIL", "ret-0")
    actor = NodeActor(order(tmp_path, "ret-0").to_json(), HOST, False)
    failed = await seen(actor, lambda v: v.state is NodeState.FAILED)
    assert "there is no model in /nowhere" in failed.note
    await actor.stop()


async def test_a_node_that_was_up_elsewhere_is_tried_for_ever(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("STAND_IN_FAIL", "ret-0")
    told = order(tmp_path, "ret-0")
    told = replace(told, policy=replace(POLICY, backoff=BackoffConfig(0.01, 1.0)))
    actor = NodeActor(told.to_json(), HOST, True)
    await seen(actor, lambda v: v.restarts > POLICY.max_failed_starts + 1)
    await actor.stop()


async def test_a_node_listens_where_it_is_told_to(tmp_path: Path) -> None:
    told = replace(order(tmp_path), host="127.0.0.2")
    actor = NodeActor(told.to_json(), HOST, False)
    pid = (await seen(actor, is_ready)).pid
    command = psutil.Process(pid).cmdline()
    assert command[command.index("--host") + 1] == "127.0.0.2"
    await actor.stop()


def test_run_files_may_lie_apart_from_the_data(tmp_path: Path) -> None:
    assert RunDir(tmp_path / "x" / "y", tmp_path).data_dir == tmp_path
    assert RunDir.of(tmp_path).data_dir == tmp_path
