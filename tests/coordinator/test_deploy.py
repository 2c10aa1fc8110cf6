"""From a plan to a rig: roles, cores, batches and limits, and what cannot be deployed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.deploy import rig_for
from ragschema.errors import IncompatibleRequest, InvalidInput, RagrigError
from ragschema.local import CORE, NODE
from ragschema.planner.plan_file import StoredGroup, StoredPlan, StoredStage
from ragschema.refining import RerankConfig
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig


def stage(name: str, batch: int, **more: object) -> StoredStage:
    plain = StoredStage(name, batch, None, None, None, None)
    return replace(plain, **more)


RETRIEVAL = StoredGroup(0, None, (stage("retrieval", 16, hosts=1, device=NODE, timeout_s=0.005),))
TOGETHER = StoredGroup(2, CORE, (stage("prefill", 4), stage("decode", 32, cache_bytes=200 * 2**20)))
BASE = RigConfig(
    llm_nodes=(
        LlmNodeConfig("plain"),
        LlmNodeConfig("writer", generator="hf:/models/writer", kv_mib=64, reranker="/models/judge"),
    ),
    retrieval_nodes=(RetrievalNodeConfig("ret", backend="simd"),) * 1,
)


def plan(*groups: StoredGroup, iterative: int | None = None) -> StoredPlan:
    return StoredPlan("desk", {"qps": 10.0}, groups, {}, {"e2e_s_p99": 6.0}, iterative)


def test_stages_that_share_cores_are_one_node() -> None:
    rig = rig_for(plan(RETRIEVAL, TOGETHER), BASE, [3, 5, 7])
    (node,) = rig.llm_nodes
    assert node.roles == ("embed", "generate")
    assert (node.threads, node.cpus) == (2, (3, 5))
    assert node.generator == "hf:/models/writer"
    # A prompt is read while 32 answers are being written.
    assert node.max_running == node.engine.max_running == 33
    assert node.kv_mib == 200
    assert rig.coordinator.stages.generate.max_concurrent == 33
    assert rig.coordinator.limits.max_inflight == 72  # 10 a second for 6 s, and a fifth


def test_a_larger_kv_cache_of_the_rig_file_stays() -> None:
    wide = replace(BASE, llm_nodes=(replace(BASE.llm_nodes[1], kv_mib=4096),))
    assert rig_for(plan(TOGETHER), wide, [0, 1]).llm_nodes[0].kv_mib == 4096
    own = replace(BASE, llm_nodes=(replace(BASE.llm_nodes[1], kv_mib=None),))
    assert rig_for(plan(TOGETHER), own, [0, 1]).llm_nodes[0].kv_mib is None


def test_apart_they_are_two() -> None:
    apart = plan(
        StoredGroup(1, CORE, (stage("prefill", 4),)), StoredGroup(1, CORE, (stage("decode", 8),))
    )
    rig = rig_for(apart, BASE, [0, 1])
    assert rig.coordinator.stages.generate.max_concurrent == 8 + 2 * 4
    first, second = rig.llm_nodes
    assert (first.roles, second.roles) == (("embed", "prefill"), ("decode",))
    assert (first.cpus, second.cpus) == ((0,), (1,))
    assert (first.max_running, second.max_running) == (4, 8)


def test_a_group_divided_among_processes_is_as_many_nodes() -> None:
    twins = replace(TOGETHER, processes=2, stages=(stage("prefill", 2), stage("decode", 8)))
    rig = rig_for(plan(RETRIEVAL, twins), BASE, [3, 5])
    assert [(n.name, n.roles, n.threads, n.cpus) for n in rig.llm_nodes] == [
        ("llm-0", ("embed", "generate"), 1, (3,)),
        ("llm-1", ("embed", "generate"), 1, (5,)),
    ]
    # Of 8 answers each writes 4, and reads a prompt beside.
    assert [n.max_running for n in rig.llm_nodes] == [5, 5]
    assert rig.coordinator.stages.generate.max_concurrent == 10


def test_cores_that_cannot_be_divided_are_refused() -> None:
    odd = replace(TOGETHER, accelerators=3, processes=2)
    with pytest.raises(InvalidInput, match="3 cores are not divided among 2 processes"):
        rig_for(plan(odd), BASE, [0, 1, 2])


def test_batchers_are_the_plans() -> None:
    rig = rig_for(plan(RETRIEVAL, TOGETHER, iterative=4), BASE, [0, 1])
    stages = rig.coordinator.stages
    assert (stages.retrieve.max_batch, stages.retrieve.max_wait_ms) == (16, 5.0)
    assert stages.iterative.max_batch == 4
    waiting = StoredGroup(0, None, (replace(RETRIEVAL.stages[0], timeout_s=None),))
    waits = rig_for(plan(waiting, TOGETHER), BASE, [0, 1]).coordinator.stages.retrieve
    assert waits.max_wait_ms == 1000.0


def test_hosts_are_retrieval_nodes() -> None:
    two = StoredGroup(0, None, (replace(RETRIEVAL.stages[0], hosts=2),))
    rig = rig_for(plan(two, TOGETHER), BASE, [0, 1])
    assert [node.name for node in rig.retrieval_nodes] == ["ret-0", "ret-1"]
    assert {node.backend for node in rig.retrieval_nodes} == {"simd"}
    assert rig_for(plan(TOGETHER), BASE, [0, 1]).retrieval_nodes == BASE.retrieval_nodes


def test_a_reranker_shares_the_node() -> None:
    group = replace(TOGETHER, stages=(stage("rerank", 2, timeout_s=0.0), *TOGETHER.stages))
    own = replace(BASE.coordinator, rerank=RerankConfig())
    rig = rig_for(plan(group), replace(BASE, coordinator=own), [0, 1])
    assert rig.llm_nodes[0].roles == ("embed", "generate", "rerank")
    assert rig.coordinator.stages.rerank.max_batch == 2


@pytest.mark.parametrize(
    ("broken", "base", "kind", "said"),
    [
        (plan(replace(TOGETHER, accelerators=9)), BASE, IncompatibleRequest, "9 cores"),
        (plan(replace(TOGETHER, device="l4")), BASE, IncompatibleRequest, "2 l4"),
        (plan(replace(TOGETHER, stages=(stage("encode", 1),))), BASE, InvalidInput, "encode"),
        (plan(replace(TOGETHER, stages=(stage("rerank", 1),))), BASE, InvalidInput,
         "no coordinator.rerank"),
        (plan(TOGETHER), replace(BASE, llm_nodes=BASE.llm_nodes[:1]), InvalidInput, "hf:DIR"),
        (plan(replace(TOGETHER, stages=(stage("rerank", 1),))),
         replace(BASE, llm_nodes=BASE.llm_nodes[:1]), InvalidInput, "reranker"),
    ],
)  # fmt: skip
def test_what_cannot_be_deployed_is_refused(
    broken: StoredPlan, base: RigConfig, kind: type[RagrigError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        rig_for(broken, base, [0, 1])
    assert said in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint
