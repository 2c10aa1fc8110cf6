"""The OpenAPI document: FastAPI's, made exact for this rig."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from coordinator.rest.replies import ErrorReply, TokenReply
from coordinator.rest.schemas import DocumentsBody
from ragschema.rig import LimitsConfig

_REF = "#/components/schemas/{model}"
#: Named in the document, yet by no signature: errors, and an upload's JSON form.
_UNMENTIONED: tuple[type[BaseModel], ...] = (ErrorReply, DocumentsBody, TokenReply)
ERROR_CONTENT: dict[str, Any] = {
    "application/json": {"schema": {"$ref": _REF.format(model=ErrorReply.__name__)}}
}
_DESCRIPTION = """Questions over your own documents.

Every error has one body: `{"error": {"type", "message", "field", "hint", "trace_id"}}`. Send
`x-trace-id` (16 or 32 hex digits) to choose the trace id; every answer carries it in a header.
Unknown fields and query parameters are refused, and types are never coerced."""
_SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_OPEN_PATHS = frozenset({"/healthz", "/health", "/readyz"})


def event_schema(events: dict[str, type[BaseModel]]) -> dict[str, Any]:
    """The schema of one server-sent event, by its name; ``data`` is JSON of the model."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": list(events)},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "oneOf": [
            {
                "properties": {
                    "event": {"const": name},
                    "data": {"contentSchema": {"$ref": _REF.format(model=model.__name__)}},
                }
            }
            for name, model in events.items()
        ],
    }


def build_document(app: FastAPI, limits: LimitsConfig, with_key: bool) -> dict[str, Any]:
    """The document of a server with these limits, which wants a key or does not."""
    document = get_openapi(
        title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes
    )
    schemas: dict[str, Any] = document["components"]["schemas"]
    # FastAPI adds its own validation error to every operation; ours is another.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in _UNMENTIONED:
        _add_model(schemas, model)
    _set_limits(document, limits)
    if with_key:
        document["components"]["securitySchemes"] = _SECURITY
        for path, operations in document["paths"].items():
            needed: list[Any] = [] if path in _OPEN_PATHS else [{"bearer": []}, {"api_key": []}]
            for operation in operations.values():
                operation["security"] = needed
    return document


def _add_model(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    found = model.model_json_schema(ref_template=_REF)
    schemas.update(found.pop("$defs", {}))
    schemas[model.__name__] = found


def _set_limits(node: Any, limits: LimitsConfig) -> None:
    """Writes the rig's bounds where the schemas name them."""
    if isinstance(node, list):
        for item in node:
            _set_limits(item, limits)
    elif isinstance(node, dict):
        for mark, keyword in (("x-limit", "maximum"), ("x-limit-items", "maxItems")):
            if isinstance(node.get(mark), str):
                node[keyword] = getattr(limits, node.pop(mark))
        for value in node.values():
            _set_limits(value, limits)
