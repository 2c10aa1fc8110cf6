"""POST /v1/embeddings, as OpenAI clients know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import to_json, vector_base64
from coordinator.rest.openai_replies import EmbeddingsReply
from coordinator.rest.route import NODE_ERRORS, add_operation
from coordinator.rest.schemas import EmbeddingsBody
from ragschema.errors import IncompatibleRequest, NotFound, Unavailable
from ragschema.types import EmbedPurpose, ModelInfo, Role

if TYPE_CHECKING:
    from coordinator.runtime import Runtime


async def embeddings(call: Call, body: EmbeddingsBody) -> Reply:
    """Embed texts with the rig's embedder.

    `encoding_format` base64 gives little-endian float32. `purpose` matters for models that read
    queries and passages differently.
    """
    model = embedder_of(call.services.runtime)
    if body.model is not None and body.model != model.name:
        raise NotFound(
            f"there is no embedder {body.model!r}", field="model", hint=f"use {model.name!r}"
        )
    if body.dimensions is not None and body.dimensions != model.dim:
        raise IncompatibleRequest(
            f"{model.name} gives {model.dim} dimensions, not {body.dimensions}",
            field="dimensions",
            hint="leave dimensions out",
        )
    context = call.context()
    with call.guard(context):
        vectors, tokens = await call.services.runtime.pipeline.embed(
            body.texts(), EmbedPurpose(body.purpose), context
        )
    as_base64 = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector_base64(vector) if as_base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(to_json({"object": "list", "data": data, "model": model.name, "usage": usage}))


def embedder_of(runtime: Runtime) -> ModelInfo:
    """The embedder; raises Unavailable while no LLM node has told of one."""
    return _model_of(runtime, Role.EMBED)


def generator_of(runtime: Runtime) -> ModelInfo:
    """The generator; raises Unavailable while no LLM node has told of one."""
    writes = Role.PREFILL if "prefill" in runtime.rig.needed_roles else Role.GENERATE
    return _model_of(runtime, writes)


def _model_of(runtime: Runtime, role: Role) -> ModelInfo:
    for model in runtime.pool.models():
        if model.role is role:
            return model
    raise Unavailable(
        f"no LLM node with the role {role.value} answers",
        hint="see GET /readyz; the supervisor restarts a node that crashed",
    )


def add(router: APIRouter) -> None:
    add_operation(
        router,
        "POST",
        "/v1/embeddings",
        embeddings,
        EmbeddingsReply,
        errors=NODE_ERRORS,
        tag="openai",
    )
