from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.engine_work import engine_detail
from coordinator.nodes.llm import LlmNode
from ragschema.rig import LlmNodeConfig
from ragschema.wire.llm_pb2 import EngineStatus, LlmStatusReply
from tests.coordinator.making import FAST
from tests.coordinator.test_metrics import samples
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer

STATUS = EngineStatus(
    steps_total=10, computed_tokens_total=250, step_us_total=500_000, batch_tokens=40,
    step_us=30_000, running=3, waiting=2, paused=1, preempted_total=4, kv_blocks_used=30,
    kv_blocks=120, block_tokens=16, prefix_query_tokens_total=200, prefix_hit_tokens_total=50,
    max_tokens=512,
)  # fmt: skip


def test_the_detail_has_shares_and_means() -> None:
    detail = engine_detail(STATUS)
    assert detail["batch_tokens_mean"] == 25
    assert detail["step_ms_mean"] == pytest.approx(50)
    assert detail["kv_use"] == 0.25
    assert detail["kv_tokens"] == 1920
    assert detail["prefix_hit_rate"] == 0.25


def test_an_engine_that_did_nothing_has_no_shares() -> None:
    detail = engine_detail(EngineStatus())
    shares = ("batch_tokens_mean", "step_ms_mean", "kv_use", "prefix_hit_rate")
    assert {detail[name] for name in shares} == {None}


async def test_checks_export_what_the_engine_tells(tmp_path: Path) -> None:
    class Busy(FakeLlm):
        async def Status(self, request: Any, context: Any) -> LlmStatusReply:
            return LlmStatusReply(engine=STATUS)

    metrics = Metrics()
    async with FakeServer(Busy("llm-0", 4)) as server:
        node = LlmNode(LlmNodeConfig(name="llm-0"), server.address, metrics, FAST)
        node.start()
        await until(lambda: node.ready)
        assert node.health().detail["engine"] == engine_detail(STATUS)
        await node.close()
    found = samples(metrics)
    assert found["ragrig_engine_preemptions_total[('node', 'llm-0')]"] == 4
    assert found["ragrig_engine_step_seconds_total[('node', 'llm-0')]"] == pytest.approx(0.5)
    assert found["ragrig_engine_kv_blocks_used[('node', 'llm-0')]"] == 30
    assert found["ragrig_engine_waiting_sequences[('node', 'llm-0')]"] == 2
