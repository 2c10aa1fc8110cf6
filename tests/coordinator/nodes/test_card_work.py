"""What cards tell, in metrics and in the status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.metrics import Metrics
from coordinator.nodes.card_work import card_detail
from coordinator.nodes.retrieval import RetrievalNode
from ragschema.rig import RetrievalNodeConfig
from ragschema.wire.retrieval_pb2 import CardStatus, RetrievalStatusReply
from tests.coordinator.making import FAST
from tests.coordinator.test_metrics import samples
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeRetrieval, FakeServer

STATUS = CardStatus(
    starts=3, queries=40, cycles=1000, codes=14_000, bytes_read=224_000, stall_memory=100,
    stall_table=50, sent_bytes=900, fetched_bytes=300, host_queries=2, faults=1, resets=1,
)  # fmt: skip


def test_the_detail_has_shares() -> None:
    detail = card_detail(STATUS)
    assert detail["codes_per_cycle"] == 14
    assert detail["stall_share"] == {"memory": 0.1, "table": 0.05, "topk": 0.0, "result": 0.0}
    assert (detail["faults"], detail["resets"], detail["host_queries"]) == (1, 1, 2)


def test_a_card_that_did_nothing_has_no_shares() -> None:
    detail = card_detail(CardStatus())
    assert detail["codes_per_cycle"] is None
    assert detail["stall_share"] == dict.fromkeys(("memory", "table", "topk", "result"))


@pytest.mark.parametrize("card", [STATUS, None])
async def test_checks_export_what_the_card_tells(card: CardStatus | None, tmp_path: Path) -> None:
    class Carded(FakeRetrieval):
        async def Status(self, request: Any, context: Any) -> RetrievalStatusReply:
            return RetrievalStatusReply(card=card)

    metrics = Metrics()
    async with FakeServer(Carded("ret-0", tmp_path)) as server:
        node = RetrievalNode(RetrievalNodeConfig("ret-0"), server.address, metrics, FAST)
        node.start()
        await until(lambda: node.ready)
        detail = node.health().detail
        await node.close()
    found = samples(metrics)
    name = "ragrig_fpga_faults_total[('node', 'ret-0')]"
    if card is None:
        assert "card" not in detail
        assert name not in found
    else:
        assert detail["card"] == card_detail(card)
        assert found[name] == 1
        assert found["ragrig_fpga_bytes_read_total[('node', 'ret-0')]"] == 224_000
