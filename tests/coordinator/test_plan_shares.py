from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.deploy import rig_for
from coordinator.plan_shares import shares_for
from ragschema.llm_rig import RoleShares
from ragschema.planner.plan_file import StoredGroup
from ragschema.refining import RerankConfig
from tests.coordinator.test_deploy import BASE, TOGETHER, plan, stage

WITH_RERANK = replace(TOGETHER, stages=(stage("rerank", 2), *TOGETHER.stages))
#: A request takes 0.1 s of the reranker, 0.05 of prefill (batches of 4), 0.25 of decode (of 32).
POINT = {"load": 0.3, "stage_s.rerank": 0.2, "stage_s.prefill": 0.2, "stage_s.decode": 8.0}
BUSY = {"load": 0.9, "stage_s.rerank": 9.0, "stage_s.prefill": 9.0, "stage_s.decode": 9.0}


def test_shares_are_the_time_a_request_needs() -> None:
    told = replace(plan(WITH_RERANK), points=(BUSY, POINT))
    shares = shares_for(WITH_RERANK, ("generate", "rerank"), told, RoleShares(rerank=7.0))
    assert shares == RoleShares(generate=1.5, rerank=0.5)


def test_one_role_alone_needs_no_shares() -> None:
    told = replace(plan(TOGETHER), points=(POINT,))
    assert shares_for(TOGETHER, ("generate",), told, RoleShares()) == RoleShares()


@pytest.mark.parametrize("points", [(), ({"load": 0.3, "stage_s.rerank": 0.2},)])
def test_without_times_those_of_the_rig_file_hold(points: tuple[dict[str, float], ...]) -> None:
    own = RoleShares(rerank=2.0, index_scan=3.0)
    told = replace(plan(WITH_RERANK), points=points)
    assert shares_for(WITH_RERANK, ("generate", "rerank"), told, own) == RoleShares(rerank=2.0)


def test_tiny_and_huge_needs_stay_shares() -> None:
    tiny = StoredGroup(1, "core", (stage("rerank", 4096), stage("decode", 1)))
    point = {"load": 0.3, "stage_s.rerank": 1e-9, "stage_s.decode": 100.0}
    shares = shares_for(
        tiny, ("decode", "rerank"), replace(plan(tiny), points=(point,)), RoleShares()
    )
    assert shares == RoleShares(decode=2.0, rerank=0.001)


def test_they_reach_the_node() -> None:
    own = replace(BASE.coordinator, rerank=RerankConfig())
    told = replace(plan(WITH_RERANK), points=(POINT,))
    rig = rig_for(told, replace(BASE, coordinator=own), [0, 1])
    assert rig.llm_nodes[0].shares.given() == {"generate": 1.5, "rerank": 0.5}
