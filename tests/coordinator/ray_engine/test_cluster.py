"""A plan on a cluster of two machines: as it is typed, and as machines, actors and plans go."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import yaml

from coordinator.export.plan import planned_rig
from ragschema.planner.plan_file import read_plan
from ragschema.rig import load_rig
from ragschema.wire import llm_pb2, llm_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from tests.coordinator.ray_engine.clusters import ClusterHandle, running_cluster
from tests.coordinator.ray_engine.load import running_load
from tests.e2e.corpus import animal_documents
from tests.e2e.rigs import RAGRIG, RunningRig, create_collection, running_rig
from tests.e2e.rigs import wait_for as wait_at_most
from tests.e2e.test_plan_up import planned, rig
from tests.llm_node.checkpoints import add_modules, save_tiny_bert, save_tiny_llama

COLLECTION = "zoo"
PATIENCE_S = 180.0


def wait_for(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    """As long as only a defect takes on a machine with other work."""
    wait_at_most(condition, PATIENCE_S, why)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterHandle]:
    with running_cluster(machines=2, cpus=8) as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_llama(folder / "writer", context=8192)
    add_modules(save_tiny_bert(folder / "reader", positions=512), max_seq_length=256)
    return folder


def replicated(models: Path) -> dict[str, Any]:
    """A rig file whose plans run twice: every shard, and every LLM node."""
    wanted = rig(models)
    (first,) = wanted["retrieval_nodes"]
    return {**wanted, "replicas": 2, "retrieval_nodes": [first, {**first, "name": "ret-b"}]}


@pytest.fixture(scope="module")
def appliance(
    cluster: ClusterHandle, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRig]:
    folder = tmp_path_factory.mktemp("on-ray")
    done = planned(folder, models)
    assert done.returncode == 0, done.stdout + done.stderr
    options = ("--plan", "plan.yaml", "--engine", "ray", "--ray-address", cluster.address)
    with running_rig(folder, replicated(models), *options) as running:
        create_collection(running, COLLECTION, animal_documents())
        yield running


def processes(running: RunningRig, name: str) -> list[psutil.Process]:
    """Of a node of the rig, by the ready file that its actor named."""
    end, found = f"{name}.ready", []
    for process in psutil.process_iter(["cmdline"]):
        argv = process.info["cmdline"] or []
        ours = any(a.startswith(str(running.data_dir)) and a.endswith(end) for a in argv)
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def ready(running: RunningRig) -> bool:
    """Whether all nodes are, and none is leaving."""
    with running.client() as client:
        status = client.get("/v1/status").json()
    return all(node["ready"] for node in status["nodes"]) and not status["leaving"]


def address(running: RunningRig, name: str) -> str:
    found: str = running.node(name)["address"]
    return found


def test_what_runs_is_what_the_plan_says(appliance: RunningRig) -> None:
    plan = read_plan(appliance.folder / "plan.yaml")
    wanted = planned_rig(plan, load_rig(appliance.config))
    names = {n["name"]: n["kind"] for n in appliance.state["nodes"]}
    assert names == {
        "coordinator": "coordinator", "llm-0-0": "llm", "llm-0-1": "llm",
        "ret-0": "retrieval", "ret-1": "retrieval",
    }  # fmt: skip
    for name in ("llm-0-0", "llm-0-1"):
        with grpc.insecure_channel(address(appliance, name)) as channel:
            status = llm_pb2_grpc.LlmNodeStub(channel).Status(
                llm_pb2.LlmStatusRequest(), timeout=20
            )
        roles = {llm_pb2.Role.Name(model.role) for model in status.models}
        assert {"ROLE_EMBED", "ROLE_GENERATE"} <= roles
        (process,) = processes(appliance, name)
        command = process.cmdline()
        assert command[command.index("--max-running") + 1] == str(wanted.llm_nodes[0].max_running)
        assert command[command.index("--threads") + 1] == str(plan.stages["decode"][0])
        assert process.nice() == psutil.Process().nice()
    for name in ("ret-0", "ret-1"):
        with grpc.insecure_channel(address(appliance, name)) as channel:
            told = retrieval_pb2_grpc.RetrievalNodeStub(channel).Status(
                retrieval_pb2.RetrievalStatusRequest(), timeout=20
            )
        assert told.backend == "simd"
        assert [list(s.shards) for s in told.loaded] == [[0]], "replicas of one shard"
    resolved = load_rig(appliance.data_dir / "run" / "rig.resolved.yaml")
    assert resolved.coordinator.stages == wanted.coordinator.stages


def test_replicas_are_on_different_machines(appliance: RunningRig) -> None:
    for names in (("llm-0-0", "llm-0-1"), ("ret-0", "ret-1")):
        machines = {raylet_of(processes(appliance, name)[0]) for name in names}
        assert len(machines) == 2


def raylet_of(node: psutil.Process) -> int:
    """The machine's process that started the node's actor."""
    actor = psutil.Process(node.ppid())
    return actor.ppid()


def test_a_killed_node_comes_back_where_it_was(appliance: RunningRig) -> None:
    before, (process,) = address(appliance, "ret-0"), processes(appliance, "ret-0")
    with running_load(appliance.url, COLLECTION) as load:
        wait_for(lambda: load.answered > 10, appliance.logs)
        process.kill()
        wait_for(lambda: processes(appliance, "ret-0") not in ([], [process]), appliance.logs)
        wait_for(lambda: ready(appliance), appliance.logs)
    assert load.lost == []
    assert address(appliance, "ret-0") == before


def test_a_killed_actor_is_replaced_and_followed(appliance: RunningRig) -> None:
    before = address(appliance, "ret-1")
    (process,) = processes(appliance, "ret-1")
    with running_load(appliance.url, COLLECTION) as load:
        wait_for(lambda: load.answered > 10, appliance.logs)
        os.kill(process.ppid(), signal.SIGKILL)
        wait_for(lambda: not process.is_running(), lambda: "the node outlives its actor")
        wait_for(lambda: address(appliance, "ret-1") != before, appliance.logs)
        wait_for(lambda: ready(appliance), appliance.logs)
    assert load.lost == []


def test_another_plan_takes_over_without_a_lost_request(appliance: RunningRig) -> None:
    path = appliance.folder / "plan.yaml"
    text = path.read_text()
    before = {name: address(appliance, name) for name in ("llm-0-0", "ret-1")}
    old = processes(appliance, "llm-0-0") + processes(appliance, "ret-1")
    with running_load(appliance.url, COLLECTION) as load:
        wait_for(lambda: load.answered > 10, appliance.logs)
        path.write_text(text.replace("hosts: 1", "hosts: 2").replace("batch: 8", "batch: 4"))
        wait_for(lambda: len(appliance.state["nodes"]) == 7, appliance.logs)
        wait_for(lambda: not any(p.is_running() for p in old), appliance.logs)
        answered = load.answered
        wait_for(lambda: load.answered > answered + 10, appliance.logs)
    assert load.lost == []
    assert all(address(appliance, name) != was for name, was in before.items())
    wanted = planned_rig(read_plan(path), load_rig(appliance.config)).llm_nodes[0].max_running
    (process,) = processes(appliance, "llm-0-0")
    command = process.cmdline()
    assert command[command.index("--max-running") + 1] == str(wanted)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("accelerators: 1\n", "accelerators: 64\n", "132 processors, the cluster has 10 for it"),
        ("name: decode", "name: encode", "encode"),
    ],
)
def test_a_plan_that_cannot_be_is_told_of_and_what_runs_stays(
    appliance: RunningRig, old: str, new: str, said: str
) -> None:
    path, before = appliance.folder / "plan.yaml", appliance.state
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    log = appliance.folder / "up.log"
    wait_for(lambda: said in log.read_text(), log.read_text)
    path.write_text(text)
    assert appliance.state == before
    assert ready(appliance)


def test_a_lost_machine_costs_no_request_and_its_nodes_move(
    appliance: RunningRig, cluster: ClusterHandle
) -> None:
    names = [n["name"] for n in appliance.state["nodes"] if n["kind"] != "coordinator"]
    before = {name: processes(appliance, name) for name in names}
    with running_load(appliance.url, COLLECTION) as load:
        wait_for(lambda: load.answered > 10, appliance.logs)
        cluster.lose_machine()
        cluster.add_machine()
        # Only then: until its nodes are missed everything looks as if they were back.
        wait_for(
            lambda: any(not before[name][0].is_running() for name in names),
            lambda: "the lost machine's nodes outlive it",
        )
        wait_for(
            lambda: all(len(processes(appliance, name)) == 1 for name in names)
            and ready(appliance),
            appliance.logs,
        )  # fmt: skip
    assert load.lost == []


@pytest.mark.parametrize(
    ("cores", "scanning", "said"),
    [
        (64, {}, "the plan needs 65 processors, the cluster has 16 for it"),
        (1, {"backend": "fpga", "device": "pynq:scan.xclbin"}, "needs 1 FPGA cards, the cluster"),
        (1, {"backend": "faiss-gpu"}, "needs 1 GPUs, the cluster has 0 for it"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_starts(
    appliance: RunningRig,
    tmp_path: Path,
    cluster: ClusterHandle,
    models: Path,
    cores: int,
    scanning: dict[str, str],
    said: str,
) -> None:
    text = (appliance.folder / "plan.yaml").read_text()
    (tmp_path / "plan.yaml").write_text(
        text.replace("accelerators: 1\n", f"accelerators: {cores}\n").replace(
            "hosts: 2", "hosts: 1"
        )
    )
    wanted = rig(models)
    wanted["retrieval_nodes"][0] |= scanning
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump({"data_dir": "data", **wanted}))
    done = subprocess.run(
        [str(RAGRIG), "up", "-c", "rig.yaml", "--plan", "plan.yaml", "--engine", "ray",
         "--ray-address", cluster.address],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "data" / "run" / "ray").exists()
