"""The REST application of one coordinator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.types import ASGIApp

from coordinator.auth import ApiKey
from coordinator.rest.call import Services
from coordinator.rest.edge_metrics import EdgeMetrics
from coordinator.rest.limits import Edge
from coordinator.rest.openapi import build_document
from coordinator.rest.operations import (
    chat,
    collections,
    completions,
    documents,
    embeddings,
    health,
    jobs,
    models,
    query,
    recall,
    search,
)
from ragschema.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from coordinator.jobs.runner import JobRunner
    from coordinator.runtime import Runtime

#: The busiest first, since routes are tried in order.
_TOPICS = (
    search, query, chat, completions, embeddings, models, collections, recall, documents, jobs,
    health,
)  # fmt: skip


class EdgeApp(FastAPI):
    """FastAPI with one layer of ours in place of its own error and body layers."""

    def __init__(self, services: Services, key: ApiKey | None) -> None:
        super().__init__(
            title="ragrig",
            version=SOFTWARE_VERSION,
            redoc_url=None,
            telemetry={
                "tracing": False,
                "metrics": False,
                "logs": False,
                "auto_configure": False,
            },
        )
        self.router.redirect_slashes = False
        self._services = services
        self._key = key
        for topic in _TOPICS:
            topic.add(self.router)

    def build_middleware_stack(self) -> ASGIApp:
        metrics = EdgeMetrics(self._services.runtime.metrics.registry)
        inner = AsyncExitStackMiddleware(self.router)
        return Edge(inner, self.router.routes, self._services, self._key, metrics)

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            limits = self._services.limits
            self.openapi_schema = build_document(self, limits, self._key is not None)
        return self.openapi_schema


def create_app(runtime: Runtime, jobs: JobRunner, api_key: ApiKey | None) -> FastAPI:
    """The application; runtime and jobs are started and stopped by the caller."""
    return EdgeApp(Services(runtime, jobs, time.monotonic()), api_key)
