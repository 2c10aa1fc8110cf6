"""What the coordinator measures, for Prometheus.

One registry per coordinator, so that two in one process do not mix. Every
label has few values: stages, node names and error types. Collections, whose
names users choose, label the estimates of their recall and nothing else; those
are collected afresh, so that a dropped one leaves no series behind. Children
are looked up once, because ``labels()`` costs more than the observation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from coordinator.nodes.card_work import CardWork
from coordinator.nodes.device_work import DeviceWork
from coordinator.nodes.engine_work import EngineWork
from coordinator.nodes.work import NodeWork
from coordinator.recall.collector import RecallCollector
from coordinator.recall.window import RecallEstimate
from coordinator.replan.observe import Workload
from coordinator.types import Coverage, Timings, Usage
from ragschema.errors import InternalError, RagrigError, all_error_types

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
STAGES: Final = (
    "queue", "rewrite", "embed", "probe", "scan", "merge", "rerank", "prompt", "first_token",
    "total",
)  # fmt: skip
OPERATIONS: Final = ("search", "query", "embed")
_SECONDS = (
    1e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
)  # fmt: skip
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class BatchMetrics:
    """One batcher's view: sizes and refusals."""

    __slots__ = ("refused", "size")

    def __init__(self, size: Histogram, refused: Counter) -> None:
        self.size = size
        self.refused = refused


class _Operation:
    """A plain class: a generator-based context manager costs three times as much."""

    __slots__ = ("_metrics", "_name")

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def __enter__(self) -> None:
        self._metrics.started(self._name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.ended(self._name, error)


class Metrics:
    """All of the pipeline's measurements.

    Attributes:
        registry: for further collectors, such as the REST edge's.
        node_work: what retrieval nodes tell of themselves.
        engine_work: what the engines of LLM nodes tell.
        device_work: how the roles of LLM nodes share their devices.
        card_work: what the cards of retrieval nodes tell.
        workload: what questions are like.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.node_work = NodeWork()
        self.registry.register(self.node_work)
        self.engine_work = EngineWork()
        self.registry.register(self.engine_work)
        self.device_work = DeviceWork()
        self.registry.register(self.device_work)
        self.card_work = CardWork()
        self.registry.register(self.card_work)
        self.workload = Workload()
        self._stages = self._stage_histograms()
        self._sizes = self._histogram("batch_requests", "Requests per call", ("stage",), _SIZES)
        self._refused = self._counter("refused", "Requests a full queue refused", ("stage",))
        self._depth = self._gauge("queue_depth", "Requests that wait for a stage", ("stage",))
        self._running = self._gauge("calls_running", "Calls of a stage under way", ("stage",))
        self._outcomes = self._counter(
            "operations", "Finished operations by outcome", ("operation", "outcome")
        )
        self._inflight = self._gauge("operations_inflight", "Operations under way", ("operation",))
        self._errors = self._counter("errors", "Failed operations by error type", ("type",))
        self._node_errors = self._counter("node_errors", "Failed calls to a node", ("node", "type"))
        self._node_up = self._gauge("node_up", "1 while a node may be used", ("node", "kind"))
        self._tokens = self._counter("tokens", "Tokens read and written", ("kind",))
        self._fraction = self._histogram("coverage", "Share of rows searched", (), _SHARES)
        self._recall_samples = self._counter(
            "recall_samples", "Searches drawn for comparison with exact search", ("outcome",)
        )
        self._error_types = frozenset(all_error_types())
        self._doing = {name: self._inflight.labels(name) for name in OPERATIONS}
        self._ok = {name: self._outcomes.labels(name, "ok") for name in OPERATIONS}

    def observe_timings(self, timings: Timings) -> None:
        """One request's stages; those it did not pass are left out."""
        stages = self._stages
        stages["queue"].observe(timings.queue_ms / 1e3)
        stages["total"].observe(timings.total_ms / 1e3)
        for name, value in (
            ("rewrite", timings.rewrite_ms),
            ("embed", timings.embed_ms),
            ("probe", timings.probe_ms),
            ("scan", timings.scan_ms),
            ("merge", timings.merge_ms),
            ("rerank", timings.rerank_ms),
            ("prompt", timings.prompt_ms),
            ("first_token", timings.first_token_ms),
        ):
            if value is not None:
                stages[name].observe(value / 1e3)

    def observe_coverage(self, coverage: Coverage) -> None:
        self._fraction.observe(coverage.fraction)

    def observe_usage(self, usage: Usage) -> None:
        for kind, tokens in (
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
            ("embed", usage.embed_tokens),
        ):
            if tokens:
                self._tokens.labels(kind).inc(tokens)

    def rewrote(self, tokens: int) -> None:
        """Tokens read and written to turn a question into queries."""
        self._tokens.labels("rewrite").inc(tokens)

    def operation(self, name: str) -> _Operation:
        """Counts what happens inside the ``with`` block; ``name`` is one of OPERATIONS."""
        return _Operation(self, name)

    def started(self, operation: str) -> None:
        self._doing[operation].inc()
        if operation == "query":
            self.workload.arrived()

    def ended(self, operation: str, error: BaseException | None) -> None:
        """``error`` is what ended it; None: all went well."""
        self._doing[operation].dec()
        if error is None:
            self._ok[operation].inc()
        elif isinstance(error, Exception):
            known = error if isinstance(error, RagrigError) else InternalError(str(error))
            self._outcomes.labels(operation, "error").inc()
            self._errors.labels(self._type_of(known)).inc()
        else:
            # CancelledError or GeneratorExit: the caller left.
            self._outcomes.labels(operation, "cancelled").inc()

    def node_failed(self, node: str, error: RagrigError) -> None:
        """``node`` is a name of the rig file."""
        self._node_errors.labels(node, self._type_of(error)).inc()

    def node_up(self, node: str, kind: str, up: bool) -> None:
        self._node_up.labels(node, kind).set(1.0 if up else 0.0)

    def recall_sample(self, outcome: str) -> None:
        """A search was drawn; ``outcome`` tells what became of its comparison."""
        self._recall_samples.labels(outcome).inc()

    def watch_recall(self, estimates: Callable[[], Mapping[str, RecallEstimate]]) -> None:
        """Exports what ``estimates`` tells by collection whenever somebody scrapes."""
        self.registry.register(RecallCollector(estimates))

    def batcher(
        self, stage: str, waiting: Callable[[], float], running: Callable[[], float]
    ) -> BatchMetrics:
        """Registers a batcher; its depth is read when somebody scrapes."""
        self._depth.labels(stage).set_function(waiting)
        self._running.labels(stage).set_function(running)
        return BatchMetrics(self._sizes.labels(stage), self._refused.labels(stage))

    def render(self) -> bytes:
        """The exposition text; its type is CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _type_of(self, error: RagrigError) -> str:
        return error.type_name if error.type_name in self._error_types else "internal"

    def _stage_histograms(self) -> dict[str, Histogram]:
        family = self._histogram("stage_seconds", "Time in a stage", ("stage",), _SECONDS)
        return {stage: family.labels(stage) for stage in STAGES}

    def _counter(self, name: str, what: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"ragrig_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"ragrig_{name}", what, labels, registry=self.registry)

    def _histogram(
        self, name: str, what: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(f"ragrig_{name}", what, labels, registry=self.registry, buckets=buckets)
