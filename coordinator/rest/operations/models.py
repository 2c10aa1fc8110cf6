"""GET /v1/models: collections to chat with, and the models behind them."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import APIRouter

from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import to_json
from coordinator.rest.openai_replies import ModelsReply
from coordinator.rest.route import add_operation
from ragschema.errors import RagrigError

if TYPE_CHECKING:
    from coordinator.runtime import Runtime

MODEL_PREFIX = "ragrig/"


async def models(call: Call) -> Reply:
    """List what `model` may name: `ragrig/COLLECTION`, the generator and the embedder."""
    runtime = call.services.runtime
    found = [
        _item(f"{MODEL_PREFIX}{name}", _created_s(runtime, name), "ragrig")
        for name in runtime.catalog.names()
    ]
    names = dict.fromkeys(model.name for model in runtime.pool.models())
    found.extend(_item(name, 0, "llm-node") for name in names)
    return Reply(to_json({"object": "list", "data": found}))


def _item(name: str, created_s: int, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created_s, "owned_by": owner}


def _created_s(runtime: Runtime, name: str) -> int:
    # A collection that cannot be opened is still listed; /readyz says why.
    with contextlib.suppress(RagrigError, ValueError):
        created_at = runtime.catalog.current(name).manifest.created_at
        return max(0, int(datetime.fromisoformat(created_at).timestamp()))
    return 0


def add(router: APIRouter) -> None:
    add_operation(router, "GET", "/v1/models", models, ModelsReply, tag="openai")
