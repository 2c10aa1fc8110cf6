from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.retrieval import RetrievalNode
from coordinator.nodes.work import NodeWork
from ragschema.rig import RetrievalNodeConfig
from ragschema.wire.retrieval_pb2 import RetrievalStatusReply
from tests.coordinator.making import FAST
from tests.coordinator.test_metrics import samples
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeRetrieval, FakeServer


def told(work: NodeWork) -> dict[tuple[str, str], float]:
    return {
        (s.name, s.labels["node"]): s.value for family in work.collect() for s in family.samples
    }


def test_totals_keep_their_node_and_get_base_units() -> None:
    work = NodeWork()
    work.told("ret-0", RetrievalStatusReply(searches_total=3, queue_us_total=1500, waiting=2))
    work.told("ret-1", RetrievalStatusReply(searches_total=5, survivors_total=9))
    found = told(work)
    assert found["ragrig_node_searches_total", "ret-0"] == 3
    assert found["ragrig_node_searches_total", "ret-1"] == 5
    assert found["ragrig_node_survivors_total", "ret-1"] == 9
    assert found["ragrig_node_queue_seconds_total", "ret-0"] == pytest.approx(0.0015)
    assert found["ragrig_node_waiting", "ret-0"] == 2
    assert ("ragrig_node_scan_bytes_per_second", "ret-0") not in found


def test_speed_is_that_of_the_last_scans_and_survives_pauses_and_restarts() -> None:
    work = NodeWork()
    key = ("ragrig_node_scan_bytes_per_second", "ret-0")
    speeds = []
    for scanned, scan_us in ((0, 0), (2_000_000, 100), (2_000_000, 100), (8_000_000, 400), (5, 1)):
        status = RetrievalStatusReply(bytes_scanned_total=scanned, scan_us_total=scan_us)
        work.told("ret-0", status)
        speeds.append(told(work).get(key))
    assert speeds[0] is None
    assert speeds[1:] == pytest.approx([20e9, 20e9, 20e9, 20e9])


async def test_checks_export_what_the_node_tells(tmp_path: Path) -> None:
    class Busy(FakeRetrieval):
        async def Status(self, request: object, context: object) -> RetrievalStatusReply:
            return RetrievalStatusReply(bytes_scanned_total=77)

    metrics = Metrics()
    async with FakeServer(Busy("ret-0", tmp_path)) as server:
        node = RetrievalNode(RetrievalNodeConfig(name="ret-0"), server.address, metrics, FAST)
        node.start()
        await until(lambda: node.ready)
        await node.close()
    assert samples(metrics)["ragrig_node_scanned_bytes_total[('node', 'ret-0')]"] == 77
