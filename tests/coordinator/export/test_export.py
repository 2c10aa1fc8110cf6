"""Manifests that validators accept, whose commands nodes understand, and whose names fit."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.export.compose import compose_text
from coordinator.export.deployment import DATA, KEY_FILE, RIG_FILE, Deployment, deployment_of
from coordinator.export.kubernetes import Volumes, kubernetes_text, prefix_of
from coordinator.export.plan import planned_rig, with_batches
from ragschema.errors import InvalidInput
from ragschema.local import CORE
from ragschema.planner.plan_file import StoredGroup, StoredPlan, StoredStage
from ragschema.rig import (
    CoordinatorConfig,
    LlmNodeConfig,
    RetrievalNodeConfig,
    RigConfig,
    parse_rig,
)

IMAGE = "registry.local:5000/ragrig:0.1.0"
RIG = RigConfig(
    name="shop",
    data_dir="/srv/data",
    replicas=2,
    coordinator=CoordinatorConfig(api_key_file="/home/me/key"),
    llm_nodes=(
        LlmNodeConfig("embed", roles=("embed",), embedder="/models/a/mini", threads=2),
        LlmNodeConfig("write", roles=("generate",), generator="hf:/models/b/mini", kv_mib=512),
        LlmNodeConfig("up", roles=("generate",), generator="openai:https://h/v1", api_key_env="UP"),
        LlmNodeConfig("far", roles=("generate",), address="10.0.0.9:7000"),
    ),
    retrieval_nodes=(
        RetrievalNodeConfig("ret-0", backend="simd", threads=3, cpus=(0, 1), numa_node=0),
        RetrievalNodeConfig("ret-1", backend="fpga"),
    ),
)


def exported(to: str, rig: RigConfig = RIG) -> str:
    if to == "compose":
        return compose_text(deployment_of(rig, IMAGE), 9090)
    deployment = deployment_of(rig, IMAGE, prefix_of(rig.name))
    return kubernetes_text(deployment, Volumes(storage_class="shared"))


def validated(to: str, path: Path) -> subprocess.CompletedProcess[str]:
    """By a schema of the engine's own, strictly."""
    if to == "compose":
        command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    else:
        command = ["kubernetes_validate", "--strict", "-k", "1.30"]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *command, str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("to", ["compose", "kubernetes"])
def test_a_validator_accepts_it(tmp_path: Path, to: str) -> None:
    path = tmp_path / "out.yaml"
    path.write_text(exported(to))
    done = validated(to, path)
    assert done.returncode == 0, done.stdout + done.stderr
    # And would not accept anything.
    path.write_text(exported(to).replace("image:", "picture:"))
    assert validated(to, path).returncode != 0


def documents() -> dict[tuple[str, str], Any]:
    loaded = yaml.safe_load_all(exported("kubernetes"))
    return {(d["kind"], d["metadata"]["name"]): d for d in loaded}


def test_kubernetes_runs_every_node_that_is_not_elsewhere() -> None:
    found = documents()
    names = {name for kind, name in found if kind == "Deployment"}
    assert names == {f"shop-{n}" for n in ("coordinator", "embed", "write", "up", "ret-0", "ret-1")}
    for name in names:
        workload, service = found["Deployment", name]["spec"], found["Service", name]["spec"]
        assert service["selector"] == workload["template"]["metadata"]["labels"]
        assert workload["selector"]["matchLabels"] == service["selector"]
        (container,) = workload["template"]["spec"]["containers"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in workload["template"]["spec"]["volumes"]}
    claims = {name for kind, name in found if kind == "PersistentVolumeClaim"}
    assert claims == {"shop-data", "shop-models"}
    assert found["NetworkPolicy", "shop-nodes"]["spec"]["policyTypes"] == ["Ingress"]


def test_secrets_are_named_and_never_written() -> None:
    found = documents()
    assert not any(kind == "Secret" for kind, _ in found)
    pod = found["Deployment", "shop-coordinator"]["spec"]["template"]["spec"]
    assert {"name": "key", "secret": {"secretName": "ragrig-api-key", "defaultMode": 0o440}} in pod[
        "volumes"
    ]
    (container,) = found["Deployment", "shop-up"]["spec"]["template"]["spec"]["containers"]
    reference = {"secretKeyRef": {"name": "ragrig-upstream", "key": "UP"}}
    assert {"name": "UP", "valueFrom": reference} in container["env"]
    compose = yaml.safe_load(exported("compose"))
    assert compose["secrets"] == {"api-key": {"file": "./api.key"}}
    assert compose["services"]["up"]["environment"] == {"UP": "${UP:?set it to the key}"}


def test_the_coordinators_rig_file_reads_back() -> None:
    text = documents()["ConfigMap", "shop-rig"]["data"]["rig.yaml"]
    rig = parse_rig(text, "rig.yaml", Path("/"))
    assert {n.name: n.address for n in (*rig.llm_nodes, *rig.retrieval_nodes)} == {
        "embed": "shop-embed:7100", "write": "shop-write:7100", "up": "shop-up:7100",
        "far": "10.0.0.9:7000", "ret-0": "shop-ret-0:7100", "ret-1": "shop-ret-1:7100",
    }  # fmt: skip
    assert (rig.data_dir, rig.replicas) == (DATA, 2)
    assert rig.coordinator.api_key_file == KEY_FILE
    compose = yaml.safe_load(exported("compose"))
    inside = parse_rig(compose["configs"]["rig"]["content"], "rig.yaml", Path("/"))
    assert inside.retrieval_nodes[0].address == "ret-0:7100"


def test_models_of_one_name_get_places_of_their_own() -> None:
    compose = yaml.safe_load(exported("compose"))["services"]
    assert compose["embed"]["volumes"] == [
        {"type": "bind", "source": "/models/a/mini", "target": "/models/mini", "read_only": True}
    ]
    (volume,) = compose["write"]["volumes"]
    assert (volume["source"], volume["target"]) == ("/models/b/mini", "/models/mini-2")
    assert "hf:/models/mini-2" in compose["write"]["command"]


def test_nodes_are_reachable_only_from_inside() -> None:
    compose = yaml.safe_load(exported("compose"))
    assert compose["networks"]["nodes"] == {"internal": True}
    assert compose["services"]["ret-0"]["networks"] == ["nodes"]
    assert compose["services"]["coordinator"]["ports"] == ["127.0.0.1:9090:8080"]
    assert not any("ports" in s for n, s in compose["services"].items() if n != "coordinator")


def commands() -> Iterator[tuple[str, list[str]]]:
    for service in deployment_of(RIG, IMAGE).services:
        yield service.name, list(service.command)


@pytest.mark.parametrize("package", ["coordinator", "llm_node", "retrieval_node"])
def test_nodes_know_every_option_of_their_command(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, "serve", "--help"],
        capture_output=True, text=True, timeout=60, check=True,
        env={"COLUMNS": "200", "TERM": "dumb", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    known = set(re.findall(r"--[a-z][a-z-]*", done.stdout))
    used = {
        part for _, argv in commands() if argv[2] == package for part in argv if part[:2] == "--"
    }
    assert used
    assert used <= known
    assert not used & {"--parent-pid", "--ready-file"}, "nobody supervises a container's process"


def test_processors_of_this_machine_are_not_asked_for() -> None:
    argv = dict(commands())["ret-0"]
    assert "--cpus" not in argv
    assert "--numa-node" not in argv
    assert argv[argv.index("--threads") + 1] == "3"
    assert argv[argv.index("--data") + 1] == DATA
    assert dict(commands())["coordinator"][-4:] == [
        "--rig", RIG_FILE, "--api-key-file", KEY_FILE,
    ]  # fmt: skip


def test_a_gpu_is_asked_for_where_an_engine_runs_on_one() -> None:
    node = LlmNodeConfig("gpu", roles=("embed", "generate"), generator="hf:/m/x", kv_mib=4096)
    assert node.engine is not None
    on_gpu = replace(node, engine=replace(node.engine, device="cuda"))
    rig = replace(RIG, llm_nodes=(on_gpu,))
    compose = yaml.safe_load(exported("compose", rig))["services"]["gpu"]["deploy"]["resources"]
    assert compose["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    text = exported("kubernetes", rig)
    assert "nvidia.com/gpu: '1'" in text


def test_what_cannot_be_deployed() -> None:
    with pytest.raises(InvalidInput, match="no image"):
        deployment_of(RIG, "Not An Image")
    named = replace(RIG, llm_nodes=(LlmNodeConfig("coordinator"),))
    with pytest.raises(InvalidInput, match="is called 'coordinator'"):
        deployment_of(named, IMAGE)
    card: Any = "pynq:/opt/scan.xclbin"
    carded = replace(RIG, retrieval_nodes=(RetrievalNodeConfig("r", device=card),), replicas=1)
    with pytest.raises(InvalidInput, match="needs the card"):
        deployment_of(carded, IMAGE)


def test_a_dollar_is_no_variable() -> None:
    deployment = deployment_of(RIG, IMAGE)
    odd = replace(deployment, rig_yaml="name: $HOME\n")
    assert isinstance(odd, Deployment)
    assert yaml.safe_load(compose_text(odd, 1))["configs"]["rig"]["content"] == "name: $$HOME\n"


#: Devices, batch and group of each stage.
PLAN = {
    "encode": (1, 8, 0),
    "retrieval": (2, 32, 1),
    "prefill": (1, 4, 2),
    "decode": (1, 16, 2),
}


def test_a_plans_batches_are_taken_over() -> None:
    rig = with_batches(RIG, PLAN)
    stages = rig.coordinator.stages
    assert (stages.embed.max_batch, stages.retrieve.max_batch) == (8, 32)
    assert stages.generate.max_concurrent == 16
    assert [n.max_running for n in rig.llm_nodes] == [8, 16, 16, 16], "of those that write"


def test_a_plan_for_other_nodes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="4 hosts for retrieval, the rig 2"):
        with_batches(RIG, {**PLAN, "retrieval": (4, 32, 1)})


def stored(device: str) -> StoredPlan:
    decode = StoredStage("decode", 16, None, None, None, None)
    both = StoredGroup(2, device, (StoredStage("prefill", 4, None, None, None, None), decode))
    scan = StoredStage("retrieval", 32, 2, "host", 0.01, None)
    groups = (both, StoredGroup(0, None, (scan,)))
    return StoredPlan("case", {"qps": 4.0}, groups, {}, {}, None)


def test_a_plan_for_cores_brings_its_own_nodes() -> None:
    rig = planned_rig(stored(CORE), RIG)
    (node,) = rig.llm_nodes
    assert (node.threads, node.roles) == (2, ("embed", "generate"))
    text = exported("kubernetes", rig)
    services = deployment_of(rig, IMAGE).services
    assert [s.name for s in services] == [
        "coordinator",
        "llm-0",
        "ret-0",
        "ret-1",
        "ret-2",
        "ret-3",
    ]
    assert next(s for s in services if s.name == "llm-0").cpus == 2
    found = {d["metadata"]["name"]: d for d in yaml.safe_load_all(text) if d["kind"] == "ConfigMap"}
    inside = parse_rig(found["shop-rig"]["data"]["rig.yaml"], "rig.yaml", Path("/"))
    assert inside.llm_nodes[0].cpus == (), "those are of this machine"


def test_a_plan_for_gpus_brings_its_batches() -> None:
    rig = planned_rig(stored("h100-sxm"), RIG)
    assert [n.name for n in rig.llm_nodes] == [n.name for n in RIG.llm_nodes]
    assert rig.coordinator.stages.retrieve.max_batch == 32
