"""PUT /v1/collections/{name}/recall: what searches of a collection shall reach."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import to_json
from coordinator.rest.names import CollectionName
from coordinator.rest.operations.collections import collection_json
from coordinator.rest.refresh import serve_latest
from coordinator.rest.replies import CollectionReply
from coordinator.rest.route import add_operation
from coordinator.rest.schemas import RecallBody


async def set_recall(call: Call, name: CollectionName, body: RecallBody) -> Reply:
    """Set what searches of a collection shall reach unless they say otherwise.

    With `null` the index's own `nprobe` and refinement hold again.
    """
    runtime = call.services.runtime
    manifest = await asyncio.to_thread(runtime.store.set_recall, name, body.recall)
    await serve_latest(runtime.catalog, name)
    estimate = runtime.pipeline.recall_estimates().get(name)
    return Reply(to_json(collection_json(manifest, estimate)))


def add(router: APIRouter) -> None:
    add_operation(
        router,
        "PUT",
        "/v1/collections/{name}/recall",
        set_recall,
        CollectionReply,
        errors=(409, 502, 503),
        tag="collections",
    )
