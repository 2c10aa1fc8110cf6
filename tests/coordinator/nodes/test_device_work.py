from __future__ import annotations

from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.device_work import device_details
from coordinator.nodes.llm import LlmNode
from ragschema.rig import LlmNodeConfig
from ragschema.wire.llm_pb2 import DeviceShare, LlmStatusReply
from tests.coordinator.making import FAST
from tests.coordinator.test_metrics import samples
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeServer

SHARES = [
    DeviceShare(
        device="cpu", roles="generate+rewrite", share=4, units_total=100, busy_us_total=9_000_000,
        wait_us_total=500_000, longest_wait_us=200_000,
    ),
    DeviceShare(device="cpu", roles="embed", share=1, units_total=10, busy_us_total=3_000_000),
    DeviceShare(device="cuda:0", roles="index_scan", share=1),
]  # fmt: skip


def test_time_is_shared_among_those_of_one_device() -> None:
    engine, embed, scan = device_details(SHARES)
    assert (engine["time_share"], embed["time_share"], scan["time_share"]) == (0.75, 0.25, None)
    assert (engine["wait_ms_mean"], engine["wait_ms_longest"]) == (5.0, 200.0)
    assert (embed["wait_ms_mean"], scan["wait_ms_mean"]) == (0.0, None)
    assert (engine["roles"], engine["share"], engine["busy_s_total"]) == ("generate+rewrite", 4, 9)
    assert device_details([]) == []


async def test_checks_export_what_the_node_tells() -> None:
    class Busy(FakeLlm):
        async def Status(self, request: Any, context: Any) -> LlmStatusReply:
            return LlmStatusReply(devices=SHARES)

    metrics = Metrics()
    async with FakeServer(Busy("llm-0", 4)) as server:
        node = LlmNode(LlmNodeConfig(name="llm-0"), server.address, metrics, FAST)
        node.start()
        await until(lambda: node.ready)
        assert node.health().detail["devices"] == device_details(SHARES)
        await node.close()
    found = {name: value for name, value in samples(metrics).items() if "_device_" in name}
    values = {name: v for name, v in found.items() if "generate+rewrite" in name}
    assert sorted(values.values()) == pytest.approx([0.5, 9.0, 100.0])
    assert len(found) == 9
    metrics.device_work.forget("llm-0")
    assert not any("_device_" in name for name in samples(metrics))
