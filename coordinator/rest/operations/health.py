"""/healthz, /health, /readyz, /metrics and /v1/status."""

from __future__ import annotations

import time

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse

from coordinator.nodes.health import NodeHealth
from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import JsonObject, to_json
from coordinator.rest.errors import error_object
from coordinator.rest.operations.collections import collections_json
from coordinator.rest.operations.jobs import job_json
from coordinator.rest.readiness import problems_of, shard_groups
from coordinator.rest.replan import replan_json
from coordinator.rest.replies import AliveReply, ReadyReply, StatusReply
from coordinator.rest.route import add_operation
from ragschema.errors import Unavailable
from ragschema.version import SOFTWARE_VERSION


async def alive(call: Call) -> Reply:
    """Tell that the process serves."""
    return Reply(to_json({"status": "ok", "version": SOFTWARE_VERSION}))


async def health(call: Call) -> Reply:
    """Say that the process lives, under the name where OpenAI's load generators look for it."""
    return await alive(call)


async def ready(call: Call) -> Reply:
    """Tell whether every dependency answers, and how fast.

    503 while no LLM node embeds or generates, a group of shards has no node, or a collection
    cannot be opened.
    """
    runtime = call.services.runtime
    problems = problems_of(runtime)
    error = None
    if problems:
        missing = Unavailable("; ".join(problems), hint="see GET /v1/status")
        error = error_object(missing, call.trace_id)
    body = {
        "ready": not problems,
        "dependencies": [_dependency_json(health) for health in runtime.pool.health()],
        "error": error,
    }
    return Reply(to_json(body), status=503 if problems else 200)


async def metrics(call: Call) -> Reply:
    """Everything measured, in Prometheus' text format."""
    body = generate_latest(call.services.runtime.metrics.registry)
    return Reply(body, headers=((b"content-type", CONTENT_TYPE_LATEST.encode("ascii")),))


async def status(call: Call) -> Reply:
    """Tell nodes, shards, collections and jobs of this rig."""
    services = call.services
    runtime = services.runtime
    problems = problems_of(runtime)
    body = {
        "name": runtime.rig.name,
        "version": SOFTWARE_VERSION,
        "uptime_s": round(time.monotonic() - services.started_s, 3),
        "ready": not problems,
        "problems": problems,
        "nodes": [_node_json(health) for health in runtime.pool.health()],
        "leaving": [_dependency_json(health) for health in runtime.pool.leaving()],
        "shard_groups": [
            {"group": group.index, "nodes": group.nodes, "ready": group.ready}
            for group in shard_groups(runtime)
        ],
        "collections": collections_json(runtime),
        "jobs": [job_json(job) for job in services.jobs.jobs()],
        "replan": None if runtime.replanner is None else replan_json(runtime.replanner.view),
    }
    return Reply(to_json(body))


def _dependency_json(health: NodeHealth) -> JsonObject:
    return {
        "name": health.name,
        "kind": health.kind,
        "address": health.address,
        "ready": health.ready,
        "latency_ms": health.latency_ms,
        "error": health.error,
    }


def _node_json(health: NodeHealth) -> JsonObject:
    return {
        **_dependency_json(health),
        "instance_id": health.instance_id,
        "detail": dict(health.detail),
    }


def add(router: APIRouter) -> None:
    tag = "health"
    not_ready = {503: {"model": ReadyReply, "description": "Something is missing; `error` says it"}}
    add_operation(router, "GET", "/healthz", alive, AliveReply, tag=tag)
    add_operation(router, "GET", "/health", health, AliveReply, tag=tag)
    add_operation(router, "GET", "/readyz", ready, ReadyReply, tag=tag, responses=not_ready)
    add_operation(router, "GET", "/v1/status", status, StatusReply, tag=tag)
    add_operation(
        router, "GET", "/metrics", metrics, None, tag=tag, response_class=PlainTextResponse
    )
