"""A FastAPI route that validates bytes directly and sends without detours.

FastAPI still matches paths and writes the OpenAPI document from the endpoint's
signature; binding and answering are done here because its own way costs
several times an empty request and coerces types.

An endpoint is ``async def f(call: Call, ...)``; further parameters are path
parameters by name, at most one JSON body (a ``Strict`` model) and at most one
model of query parameters (``Annotated[Model, Query()]``).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from coordinator.rest.body import read_body, require_json
from coordinator.rest.call import Call
from coordinator.rest.errors import invalid_body
from coordinator.rest.openapi import ERROR_CONTENT
from coordinator.rest.schemas import NoQuery
from ragschema.errors import InvalidInput

#: Statuses every operation may answer.
_ALWAYS = (401, 422, 429, 500)
_MEANINGS = {
    401: "No API key, or a wrong one",
    404: "Unknown collection, document, job or model",
    409: "Somebody else changes the same thing",
    413: "The body is too large",
    415: "The body's content type is not read here",
    422: "A value is wrong; `field` names it",
    429: "A bounded queue is full; `Retry-After` says when to come back",
    500: "A defect of the server, or damaged data",
    502: "A node or an upstream server failed or broke its protocol",
    503: "A node needed for the answer is away, or coverage is too low",
    504: "The deadline passed",
}
#: What operations that call nodes may answer besides.
NODE_ERRORS = (404, 502, 503, 504)


class Answer(Protocol):
    """What an endpoint returns."""

    async def send(self, call: Call, send: Send) -> None: ...


@dataclass(frozen=True)
class Binding:
    """How an endpoint's parameters are filled from a request."""

    path: tuple[tuple[str, TypeAdapter[Any]], ...]
    body_name: str | None
    body_model: type[BaseModel] | None
    query_name: str | None
    query_model: type[BaseModel]


class EdgeRoute(APIRoute):
    """Serves one operation; see the module's text."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._binding = _binding_of(endpoint, set(self.param_convertors))
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        binding = self._binding
        values = _bind_url(binding, call)
        if binding.body_model is not None:
            exchange = call.exchange
            require_json(exchange)
            limits = call.services.limits
            raw = await read_body(exchange, receive, limits.max_body_bytes)
            values[str(binding.body_name)] = validated(binding.body_model, raw, limits)
        answer: Answer = await self.endpoint(call, **values)
        await answer.send(call, send)


def validated(model: type[BaseModel], raw: bytes, limits: object) -> BaseModel:
    """The model of a JSON body; raises InvalidInput naming field, value and fix."""
    try:
        return model.model_validate_json(raw, context=limits)
    except ValidationError as error:
        raise invalid_body(error, raw, model) from error


def _bind_url(binding: Binding, call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    parameters = call.scope["path_params"]
    for name, adapter in binding.path:
        try:
            values[name] = adapter.validate_python(parameters[name])
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise InvalidInput(
                f"{parameters[name][:200]!r}: {problem['msg']}", field=name
            ) from error
    query_string = call.scope["query_string"]
    if query_string or binding.query_name is not None:
        query = _query(binding.query_model, query_string)
        if binding.query_name is not None:
            values[binding.query_name] = query
    return values


def _query(model: type[BaseModel], query_string: bytes) -> BaseModel:
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidInput("a query parameter is given twice", field="query")
    try:
        return model.model_validate_strings(found)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))[:200]
        if problem["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields) or "none"
            raise InvalidInput(
                "unknown query parameter", field=name, hint=f"known here: {known}"
            ) from error
        raise InvalidInput(f"{found.get(name, '')[:60]!r}: {problem['msg']}", field=name) from error


def _binding_of(endpoint: Callable[..., Any], path_names: set[str]) -> Binding:
    hints = typing.get_type_hints(endpoint, include_extras=True)
    path: list[tuple[str, TypeAdapter[Any]]] = []
    body: tuple[str, type[BaseModel]] | None = None
    query: tuple[str, type[BaseModel]] | None = None
    for name in list(inspect.signature(endpoint).parameters)[1:]:
        hint = hints[name]
        if name in path_names:
            path.append((name, TypeAdapter(hint)))
        elif get_origin(hint) is Annotated:
            query = (name, get_args(hint)[0])
        else:
            body = (name, hint)
    return Binding(
        path=tuple(path),
        body_name=body[0] if body else None,
        body_model=body[1] if body else None,
        query_name=query[0] if query else None,
        query_model=query[1] if query else NoQuery,
    )


def add_operation(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    reply: type[BaseModel] | None,
    *,
    errors: tuple[int, ...] = (),
    status: int = 200,
    tag: str,
    **options: Any,
) -> None:
    """Adds one operation with everything it may answer.

    Args:
        errors: statuses with the error body besides those of every operation
            and those its body brings.
    """
    has_body = method in ("POST", "PUT")
    statuses = {*_ALWAYS, *errors, *((413, 415, 504) if has_body else ())}
    if "{" in path:
        statuses.add(404)
    documented: dict[int | str, dict[str, Any]] = {
        code: {"description": _MEANINGS[code], "content": ERROR_CONTENT}
        for code in sorted(statuses)
    }
    documented.update(options.pop("responses", {}))
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=reply,
        status_code=status,
        responses=documented,
        tags=[tag],
        summary=_first_line(endpoint),
        operation_id=endpoint.__name__,
        route_class_override=EdgeRoute,
        **options,
    )


def _first_line(endpoint: Callable[..., Any]) -> str:
    doc = inspect.getdoc(endpoint)
    assert doc, "every endpoint has a docstring, which the OpenAPI document shows"
    return doc.splitlines()[0].rstrip(".")
