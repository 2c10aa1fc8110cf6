"""Recall estimates for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coordinator.recall.window import RecallEstimate


class RecallCollector(Collector):
    """Three gauges per collection that was sampled and is still served."""

    def __init__(self, estimates: Callable[[], Mapping[str, RecallEstimate]]) -> None:
        self._estimates = estimates

    def describe(self) -> list[GaugeMetricFamily]:
        """The families without samples; asked when it is registered."""
        return list(_families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called on the event loop's thread, which owns the estimates."""
        mean, lower, window = _families()
        for collection, estimate in self._estimates().items():
            mean.add_metric([collection], estimate.mean)
            lower.add_metric([collection], estimate.lower_bound)
            window.add_metric([collection], estimate.samples)
        yield from (mean, lower, window)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    labels = ["collection"]
    return (
        GaugeMetricFamily(
            "ragrig_recall_estimate",
            "Share of the true nearest rows that sampled searches returned",
            labels=labels,
        ),
        GaugeMetricFamily(
            "ragrig_recall_lower_bound",
            "The recall is above this with 95 % confidence",
            labels=labels,
        ),
        GaugeMetricFamily(
            "ragrig_recall_window_samples", "Searches the estimate rests on", labels=labels
        ),
    )
