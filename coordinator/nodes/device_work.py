"""How the roles of LLM nodes share their devices: for Prometheus and for the status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from ragschema.wire.llm_pb2 import DeviceShare

_LABELS: Final = ["node", "device", "roles"]
#: metric, field of the status, unit's size in that of the field, meaning
_COUNTERS: Final = (
    ("units", "units_total", 1.0, "Turns on the device: engine steps, passes, index scans"),
    ("busy_seconds", "busy_us_total", 1e-6, "Time they took, summed"),
    ("wait_seconds", "wait_us_total", 1e-6, "Time they waited for their turn, summed"),
)


class DeviceWork(Collector):
    """Remembers what each node told last of its devices."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[DeviceShare, ...]] = {}

    def told(self, node: str, shares: Sequence[DeviceShare]) -> None:
        """``node`` is a name of the rig file."""
        self._told[node] = tuple(shares)

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._told.pop(node, None)

    def collect(self) -> Iterator[CounterMetricFamily]:
        told = [(node, share) for node, shares in list(self._told.items()) for share in shares]
        for name, field, scale, what in _COUNTERS:
            counter = CounterMetricFamily(f"ragrig_device_{name}", what, labels=_LABELS)
            for node, share in told:
                labels = [node, share.device, share.roles]
                counter.add_metric(labels, getattr(share, field) * scale)
            yield counter


def device_details(shares: Sequence[DeviceShare]) -> list[Mapping[str, object]]:
    """For ``/v1/status``; quotients are None before there is anything to divide."""
    busy_us: dict[str, int] = {}
    for share in shares:
        busy_us[share.device] = busy_us.get(share.device, 0) + share.busy_us_total
    return [_detail(share, busy_us[share.device]) for share in shares]


def _detail(share: DeviceShare, device_busy_us: int) -> Mapping[str, object]:
    units = share.units_total
    return {
        "device": share.device,
        "roles": share.roles,
        "share": share.share,
        "time_share": share.busy_us_total / device_busy_us if device_busy_us else None,
        "units_total": units,
        "busy_s_total": share.busy_us_total / 1e6,
        "wait_ms_mean": share.wait_us_total / 1e3 / units if units else None,
        "wait_ms_longest": share.longest_wait_us / 1e3,
    }
