"""What the edge measures of every request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


class EdgeMetrics:
    """Requests by route and status, their time, those under way, errors by type."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "ragrig_http_requests",
            "Finished requests",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "ragrig_http_request_seconds",
            "From the request's head to the end of its answer",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._errors = Counter(
            "ragrig_http_errors", "Error bodies and error events", ("type",), registry=registry
        )
        self.inflight = Gauge("ragrig_http_inflight", "Requests under way", registry=registry)
        self._children: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """``route`` is a path template, so that the label stays small."""
        key = (route, method if method in _METHODS else "other", status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(*map(str, key))
        child.inc()
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        timer.observe(seconds)

    def failed(self, error_type: str) -> None:
        self._errors.labels(error_type).inc()
