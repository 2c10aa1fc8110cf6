"""What the cards of retrieval nodes tell of their work: for Prometheus and for the status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.registry import Collector

from coordinator.nodes.work import Family, counters_of
from ragschema.wire.retrieval_pb2 import CardStatus

#: metric and field of the status, unit's size in that of the field, meaning
_COUNTERS: Final = tuple(
    (name, name, 1.0, what)
    for name, what in (
        ("starts", "Starts of the card"),
        ("queries", "Queries that the card answered, each once per segment"),
        ("cycles", "Cycles between start and done; modelled on an emulated card"),
        ("codes", "Codes that the card scanned"),
        ("bytes_read", "Bytes of codes that the card read"),
        ("stall_memory", "Cycles in which lanes waited for codes"),
        ("stall_table", "Cycles in which lanes waited for a table"),
        ("stall_topk", "Cycles in which lanes waited for the top-K queue"),
        ("stall_result", "Cycles in which queries waited for their results to be written"),
        ("sent_bytes", "Bytes synced to the card"),
        ("fetched_bytes", "Bytes synced from the card"),
        ("host_queries", "Queries that the host scanned in the card's place"),
        ("faults", "Faults of the card"),
        ("resets", "Times the card was programmed anew"),
    )
)


class CardWork(Collector):
    """Remembers what each node's card told last."""

    def __init__(self) -> None:
        self._told: dict[str, CardStatus] = {}

    def told(self, node: str, status: CardStatus) -> None:
        """``node`` is a name of the rig file."""
        self._told[node] = status

    def collect(self) -> Iterator[Family]:
        yield from counters_of("ragrig_fpga", dict(self._told), _COUNTERS)


def card_detail(status: CardStatus) -> Mapping[str, object]:
    """For ``/v1/status``; shares are None before there is anything to share."""
    cycles = status.cycles
    stalls = {
        cause: getattr(status, f"stall_{cause}") / cycles if cycles else None
        for cause in ("memory", "table", "topk", "result")
    }
    return {
        "queries": status.queries,
        "codes": status.codes,
        "codes_per_cycle": status.codes / cycles if cycles else None,
        "stall_share": stalls,
        "host_queries": status.host_queries,
        "faults": status.faults,
        "resets": status.resets,
    }
