"""/v1/collections: create, list, describe and drop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter

from coordinator.collections.store import CollectionSpec
from coordinator.recall.window import RecallEstimate
from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import JsonObject, to_json
from coordinator.rest.names import CollectionName
from coordinator.rest.operations.embeddings import embedder_of
from coordinator.rest.refresh import serve_latest
from coordinator.rest.replies import CollectionReply, CollectionsReply, DroppedReply
from coordinator.rest.route import add_operation
from coordinator.rest.schemas import CreateCollectionBody
from ragschema.errors import Conflict, RagrigError, Unavailable
from ragschema.storage.manifest import ChunkingConfig, EmbedderRef, Manifest

if TYPE_CHECKING:
    from coordinator.runtime import Runtime

_PATH = "/v1/collections"
_ONE = "/v1/collections/{name}"


async def list_collections(call: Call) -> Reply:
    """List every collection; one that cannot be opened says why in `error`."""
    runtime = call.services.runtime
    return Reply(to_json({"collections": collections_json(runtime)}))


async def create_collection(call: Call, body: CreateCollectionBody) -> Reply:
    """Create an empty collection for the rig's embedder."""
    runtime = call.services.runtime
    model = embedder_of(runtime)
    if model.dim is None:
        raise Unavailable(f"the embedder {model.name} does not tell its dimension")
    spec = CollectionSpec(
        dim=model.dim,
        metric=body.metric,
        num_shards=runtime.rig.num_shards,
        embedder=EmbedderRef(model.name, model.fingerprint),
        chunking=ChunkingConfig(body.chunking.tokens, body.chunking.overlap),
        recall=body.recall,
    )
    manifest = await asyncio.to_thread(runtime.store.create, body.name, spec)
    await serve_latest(runtime.catalog, body.name)
    return Reply(to_json(collection_json(manifest, None)), status=201)


async def get_collection(call: Call, name: CollectionName) -> Reply:
    """Describe one collection."""
    runtime = call.services.runtime
    manifest = runtime.catalog.current(name).manifest
    estimate = runtime.pipeline.recall_estimates().get(name)
    return Reply(to_json(collection_json(manifest, estimate)))


async def drop_collection(call: Call, name: CollectionName) -> Reply:
    """Drop a collection with all its documents."""
    runtime = call.services.runtime
    job = call.services.jobs.active(name)
    if job is not None:
        raise Conflict(
            f"the job {job.id} is writing to collection {name!r}",
            field="name",
            hint=f"wait for it, or end it with DELETE /v1/jobs/{job.id}",
        )
    await asyncio.to_thread(runtime.store.drop, name)
    await runtime.catalog.refresh(name)
    return Reply(to_json({"name": name, "dropped": True}))


def collections_json(runtime: Runtime) -> list[JsonObject]:
    """Every collection, those that cannot be served with their error."""
    found: list[JsonObject] = []
    errors = runtime.catalog.errors()
    estimates = runtime.pipeline.recall_estimates()
    for name in sorted({*runtime.catalog.names(), *errors}):
        error = errors.get(name)
        try:
            manifest = runtime.catalog.current(name).manifest
            shown = collection_json(manifest, estimates.get(name))
        except RagrigError:
            shown = dict.fromkeys(CollectionReply.model_fields)
        found.append({**shown, "name": name, "error": error.message if error else None})
    return found


def collection_json(manifest: Manifest, estimate: RecallEstimate | None) -> JsonObject:
    """The shape of ``CollectionReply`` for a collection that is served."""
    index = manifest.index
    chunking = manifest.chunking
    return {
        "name": manifest.collection,
        "generation": manifest.generation,
        "metric": manifest.metric.value,
        "dim": manifest.dim,
        "embedder": manifest.embedder.name if manifest.embedder else None,
        "index": "ivfpq" if index else "exact",
        "nlist": index.nlist if index else None,
        "nprobe": index.nprobe if index else None,
        "recall": {
            "wanted": manifest.recall,
            "estimate": estimate.mean if estimate else None,
            "lower_bound": estimate.lower_bound if estimate else None,
            "samples": estimate.samples if estimate else 0,
        },
        "num_shards": manifest.num_shards,
        "rows": manifest.live_rows,
        "documents": manifest.live_documents,
        "chunking": {"tokens": chunking.tokens, "overlap": chunking.overlap},
        "created_at": manifest.created_at,
        "error": None,
    }


def add(router: APIRouter) -> None:
    tag = "collections"
    add_operation(router, "GET", _PATH, list_collections, CollectionsReply, errors=(503,), tag=tag)
    add_operation(
        router,
        "POST",
        _PATH,
        create_collection,
        CollectionReply,
        errors=(409, 502, 503),
        status=201,
        tag=tag,
    )
    add_operation(router, "GET", _ONE, get_collection, CollectionReply, errors=(503,), tag=tag)
    add_operation(
        router, "DELETE", _ONE, drop_collection, DroppedReply, errors=(409, 502, 503, 504), tag=tag
    )
