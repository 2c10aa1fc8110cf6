"""What nodes need of machines, and plans that machines cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from coordinator.ray_engine.placement import Need, check_fits, needs_of, on_ray, replicated
from ragschema.errors import IncompatibleRequest
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig

CARD: Any = "pynq:/opt/scan.xclbin"
WRITER = LlmNodeConfig("gpu", threads=4, generator="hf:/m")
RIG = RigConfig(
    replicas=2,
    llm_nodes=(
        replace(WRITER, engine=replace(WRITER.engine, device="cuda:0"), cpus=(1, 2, 3, 4)),
        LlmNodeConfig("cpu", threads=2, port=7000),
        LlmNodeConfig("far", threads=9, address="10.0.0.9:7000", port=7),
    ),
    retrieval_nodes=(
        RetrievalNodeConfig("a", device=CARD),
        RetrievalNodeConfig("b", backend="simd", threads=3, cpus=(0, 1), numa_node=0),
        RetrievalNodeConfig("c"),
        RetrievalNodeConfig("d", backend="faiss-gpu"),
    ),
)


def test_nodes_need_processors_gpus_and_cards() -> None:
    needs = {need.name: dict(need.resources) for need in needs_of(RIG)}
    assert needs == {
        "gpu": {"CPU": 4, "GPU": 1},
        "cpu": {"CPU": 2},
        "a": {"CPU": 1, "fpga": 1},
        "b": {"CPU": 3},
        "c": {"CPU": 1},
        "d": {"CPU": 1, "GPU": 1},
    }, "a node that runs elsewhere needs nothing"


def test_replicas_of_a_shard_are_neighbours() -> None:
    assert [need.name for need in needs_of(RIG)] == ["gpu", "cpu", "a", "c", "b", "d"]


def test_what_only_one_machine_knows_is_left_out() -> None:
    rig = on_ray(RIG)
    assert [node.cpus for node in rig.llm_nodes] == [(), (), ()]
    assert [node.port for node in rig.llm_nodes] == [0, 0, 7]
    assert (rig.retrieval_nodes[1].cpus, rig.retrieval_nodes[1].numa_node) == ((), None)


def test_a_plan_runs_as_often_as_shards_have_nodes() -> None:
    rig = replicated(replace(RIG, llm_nodes=RIG.llm_nodes[:2]))
    assert [node.name for node in rig.llm_nodes] == ["gpu-0", "gpu-1", "cpu-0", "cpu-1"]
    once = replace(RIG, replicas=1)
    assert replicated(once) == once


def need(name: str, **resources: float) -> Need:
    return Need(name, resources)


@pytest.mark.parametrize(
    ("needs", "machines", "said"),
    [
        ([need("a", CPU=3), need("b", CPU=2)], [{"CPU": 4.0}],
         "needs 5 processors, the cluster has 4"),
        ([need("a", CPU=1, GPU=1)], [{"CPU": 4.0}], "needs 1 GPUs, the cluster has 0"),
        ([need("a", CPU=1, fpga=1), need("b", CPU=1, fpga=1)], [{"CPU": 4.0, "fpga": 1.0}],
         "needs 2 FPGA cards, the cluster has 1"),
        ([need("a", CPU=3)], [{"CPU": 2.0}, {"CPU": 2.0}],
         "node a needs 3 processors on one machine, and none has more than 2"),
        ([need("a", CPU=2), need("b", CPU=2), need("c", CPU=2)], [{"CPU": 3.0}, {"CPU": 3.0}],
         "beside the other nodes no machine has so much left"),
        ([need("a", CPU=2, GPU=1)], [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}],
         "node a needs 2 processors and 1 GPUs on one machine"),
        ([need("a", CPU=1)], [], "needs 1 processors, the cluster has 0"),
    ],
)  # fmt: skip
def test_the_resource_that_is_short_is_named(
    needs: list[Need], machines: list[Mapping[str, float]], said: str
) -> None:
    with pytest.raises(IncompatibleRequest) as caught:
        check_fits(needs, machines)
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("needs", "machines"),
    [
        ([need("a", CPU=3), need("b", CPU=1)], [{"CPU": 4.0}]),
        ([need("a", CPU=2), need("b", CPU=2)], [{"CPU": 2.0, "memory": 1.0}, {"CPU": 2.0}]),
        # The one on the card comes first, though it wants fewer processors.
        ([need("wide", CPU=4), need("card", CPU=1, fpga=1)],
         [{"CPU": 4.0, "fpga": 1.0}, {"CPU": 4.0}]),
        ([], []),
    ],
)  # fmt: skip
def test_what_fits(needs: list[Need], machines: list[Mapping[str, float]]) -> None:
    check_fits(needs, machines)
