"""Rigs of real (tiny) processes: start, crash, stop, orphans, locks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from coordinator.supervisor.node import NodeState, NodeView
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.supervisor import Supervisor, SupervisorOptions
from ragschema.errors import Conflict, Unavailable
from ragschema.rig import load_rig
from tests.coordinator.supervisor.helpers import alive, ignore, options, small_rig, wait_for

NAMES = {"coordinator", "llm-0", "ret-0", "ret-1"}


@contextlib.asynccontextmanager
async def running(data_dir: Path, opts: SupervisorOptions) -> AsyncIterator[Supervisor]:
    async with Supervisor(small_rig(data_dir), ignore, opts) as supervisor:
        readiness = await supervisor.start()
        assert readiness.ready, readiness.problem
        yield supervisor


def pids(supervisor: Supervisor) -> list[int]:
    return [v.pid for v in supervisor.views() if v.pid is not None]


async def until_state(supervisor: Supervisor, name: str, restarts: int) -> NodeView:
    for _ in range(600):
        view = next(v for v in supervisor.views() if v.name == name)
        if view.state is NodeState.READY and view.restarts >= restarts:
            return view
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} was not restarted: {view}")


async def test_starts_everything_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, options()) as supervisor:
        assert {v.name for v in supervisor.views()} == NAMES
        assert {v.state for v in supervisor.views()} == {NodeState.READY}
        started = pids(supervisor)
        assert len(started) == 4
        state = RunDir.of(tmp_path).read_state()
        assert state is not None
        assert state.pid == os.getpid()
        assert {n.name for n in state.nodes} == NAMES
        resolved = load_rig(RunDir.of(tmp_path).resolved_rig)
        addresses = {n.name: n.address for n in state.nodes}
        assert resolved.llm_nodes[0].address == addresses["llm-0"]
        assert resolved.coordinator.port == int(state.coordinator.rpartition(":")[2]) != 0
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{state.url}/readyz")).status_code == 200
    assert not [p for p in started if alive(p)]
    assert RunDir.of(tmp_path).read_state() is None
    assert not RunDir.of(tmp_path).state_file.exists()


@pytest.mark.parametrize("name", ["ret-1", "coordinator"])
async def test_killed_node_comes_back_on_its_port(tmp_path: Path, name: str) -> None:
    async with running(tmp_path, options()) as supervisor:
        before = next(v for v in supervisor.views() if v.name == name)
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        after = await until_state(supervisor, name, restarts=1)
        assert after.address == before.address
        assert after.pid != before.pid
        state = RunDir.of(tmp_path).read_state()
        assert state is not None
        assert after.pid in {n.pid for n in state.nodes}


async def test_node_that_never_starts_stops_the_rig_with_its_log(tmp_path: Path) -> None:
    seen: list[NodeView] = []
    rig = small_rig(tmp_path)
    with pytest.raises(Unavailable) as caught:
        async with Supervisor(rig, seen.append, options(STAND_IN_FAIL="ret-0")) as supervisor:
            await supervisor.start()
    message = caught.value.message
    assert "node ret-0 does not start: exited with code 1" in message
    assert "3 times" in message
    assert "there is no model in /nowhere" in message
    assert "ret-0.log" in (caught.value.hint or "")
    assert not [v.pid for v in seen if v.pid is not None and alive(v.pid)]
    waits = [v.note for v in seen if v.state is NodeState.BACKING_OFF and v.name == "ret-0"]
    assert len(waits) == 2


async def test_usage_error_of_a_node_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such option: --wheels") as caught:
        async with running(tmp_path, options(STAND_IN_USAGE="llm-0")):
            pass
    assert "times" not in caught.value.message


async def test_deaf_node_and_its_children_are_killed(tmp_path: Path) -> None:
    opts = options(STAND_IN_DEAF="ret-0", STAND_IN_CHILD="ret-1")
    async with running(tmp_path, opts) as supervisor:
        started = pids(supervisor)
        log = RunDir.of(tmp_path).log_file("ret-1").read_text()
        grandchild = int(log.split()[0])
        assert alive(grandchild)
    assert not [p for p in (*started, grandchild) if alive(p)]


async def test_second_rig_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, options()) as first:
        with pytest.raises(Conflict, match=f"held by process {os.getpid()}"):
            async with Supervisor(small_rig(tmp_path), ignore, options()):
                pass
        assert all(alive(p) for p in pids(first))
        assert RunDir.of(tmp_path).read_state() is not None


async def test_two_rigs_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with running(tmp_path / "a", options()) as first:
        async with running(tmp_path / "b", options()) as second:
            urls = {RunDir.of(tmp_path / x).read_state() for x in "ab"}
            assert len({s.url for s in urls if s is not None}) == 2
            os.kill(pids(second)[1], signal.SIGKILL)
            await until_state(second, second.views()[1].name, restarts=1)
        assert all(alive(p) for p in pids(first))
        assert {v.restarts for v in first.views()} == {0}


async def test_taken_coordinator_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    seen: list[NodeView] = []
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        rig = small_rig(tmp_path, f"coordinator: {{port: {port}}}")
        with pytest.raises(Unavailable, match=str(port)) as caught:
            async with Supervisor(rig, seen.append, options()) as supervisor:
                await supervisor.start()
    assert "--port 0" in (caught.value.hint or "")
    assert not [v for v in seen if v.pid is not None]


async def test_external_nodes_are_used_not_started(tmp_path: Path) -> None:
    text = """
coordinator: {port: 0}
retrieval_nodes:
- {name: far, address: "10.0.0.9:7001"}
"""
    async with Supervisor(small_rig(tmp_path, text), ignore, options()) as supervisor:
        await supervisor.start()
        far = next(v for v in supervisor.views() if v.name == "far")
        assert (far.state, far.pid) == (NodeState.EXTERNAL, None)
        resolved = load_rig(RunDir.of(tmp_path).resolved_rig)
        assert resolved.retrieval_nodes[0].address == "10.0.0.9:7001"


def spawn_up(data_dir: Path) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own, as ``ragrig up`` runs it."""
    code = (
        "import asyncio, pathlib\n"
        "from coordinator.supervisor.run import serve_rig\n"
        "from tests.coordinator.supervisor.helpers import small_rig, options, ignore\n"
        f"rig = small_rig(pathlib.Path({str(data_dir)!r}))\n"
        "asyncio.run(serve_rig(rig, ignore, lambda s, r: None, options()))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def node_pids(data_dir: Path, process: subprocess.Popen[bytes]) -> list[int]:
    run = RunDir.of(data_dir)
    wait_for(lambda: run.read_state() is not None, "the rig is up")
    state = run.read_state()
    assert state is not None
    assert state.pid == process.pid
    return [n.pid for n in state.nodes if n.pid is not None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all(tmp_path: Path, number: signal.Signals) -> None:
    process = spawn_up(tmp_path)
    nodes = node_pids(tmp_path, process)
    assert len(nodes) == 4
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not [p for p in nodes if alive(p)]


def test_killed_supervisor_leaves_no_orphan_and_the_lock_is_free(tmp_path: Path) -> None:
    process = spawn_up(tmp_path)
    nodes = node_pids(tmp_path, process)
    process.kill()
    process.wait(30)
    wait_for(lambda: not any(alive(p) for p in nodes), "all nodes ended")
    run = RunDir.of(tmp_path)
    assert run.state_file.exists(), "nobody was left to remove it"
    assert run.read_state() is None
    second = spawn_up(tmp_path)
    try:
        assert len(node_pids(tmp_path, second)) == 4
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    assert not psutil.pid_exists(process.pid) or not alive(process.pid)
