"""POST /v1/search: passages only."""

from __future__ import annotations

from fastapi import APIRouter

from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import search_json, to_json
from coordinator.rest.filters import filter_terms
from coordinator.rest.replies import SearchReply
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.schemas import SearchBody
from coordinator.types import SearchSpec


async def search(call: Call, body: SearchBody) -> Reply:
    """Find the passages nearest to a text or a vector.

    Give exactly one of `text` and `vector`; the vector has the collection's dimension.
    """
    spec = SearchSpec(
        collection=body.collection,
        k=body.k,
        text=body.text,
        vector=body.vector_array(),
        filters=filter_terms(body.filters),
        min_coverage=body.min_coverage,
        nprobe=body.nprobe,
        recall=body.recall,
    )
    context = call.context(body.timeout_ms)
    with call.guard(context):
        outcome = await call.services.runtime.pipeline.search(spec, context)
    return Reply(to_json(search_json(outcome, call.trace_id)))


def add(router: APIRouter) -> None:
    add_operation(
        router, "POST", "/v1/search", search, SearchReply, errors=NODE_ERRORS, tag="retrieval"
    )
