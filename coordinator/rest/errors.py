"""Every failure becomes the one error body; nothing else ever leaves."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from ragschema import errors as e
from ragschema.status import status_of

_MAX_SHOWN_CHARS = 60

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Problem:
    """An error, ready to be sent."""

    status: int
    headers: Headers
    body: bytes


_STOP_IDS = "stop_ids"
_RENAMED = "stop_token_ids"


def error_object(error: e.RagrigError, trace_id: str) -> dict[str, Any]:
    """The JSON object under the key ``error``."""
    return {
        "type": error.type_name,
        "message": error.message,
        "field": None if error.field is None else _as_sent(error.field),
        "hint": error.hint,
        "trace_id": trace_id,
    }


def _as_sent(field: str) -> str:
    """A node's name of a sampling option as bodies have it."""
    name = field.removeprefix("sampling.")
    return _RENAMED + name.removeprefix(_STOP_IDS) if name.startswith(_STOP_IDS) else name


def problem_of(error: e.RagrigError, trace_id: str) -> Problem:
    """Status, headers and body of one of our errors."""
    status = status_of(error).http
    headers: Headers = []
    if isinstance(error, e.Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if isinstance(error, e.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    body = _encoded({"error": error_object(error, trace_id)})
    return Problem(status, headers, body)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate in an echoed value
        return json.dumps(body).encode("ascii")


def routing_error(error: HTTPException, path: str, allow: str) -> e.RagrigError:
    """The router's refusal of an unknown path or method."""
    shown = path[:200]
    if error.status_code == 405:
        return e.MethodNotAllowed(f"{shown} does not take this method", hint=f"it takes {allow}")
    if error.status_code == 404:
        return e.NotFound(f"there is nothing at {shown}", hint="GET /openapi.json lists every path")
    return e.InvalidInput(str(error.detail))


def hidden_defect() -> e.InternalError:
    """What a client learns of an unexpected exception: nothing."""
    return e.InternalError(
        "the coordinator failed on this request",
        hint="its log has the details under this trace id",
    )


def invalid_body(
    error: ValidationError, raw: bytes | None, model: type[BaseModel]
) -> e.RagrigError:
    """The most telling problem of a refused body, with the field's path and its value."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return e.InvalidInput(
            f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}",
            hint="send one JSON object in UTF-8",
        )
    sent = _parsed(raw)
    by_path: dict[tuple[str, ...], list[Any]] = {}
    for problem in problems:
        by_path.setdefault(_path(problem, sent), []).append(problem)
    # A union reports each of its branches; the deepest one came nearest.
    path = max(by_path, key=len)
    return _worded(path, by_path[path], model)


def _worded(path: tuple[str, ...], problems: list[Any], model: type[BaseModel]) -> e.RagrigError:
    field = ".".join(path) or None
    kind = problems[0]["type"]
    if kind == "missing":
        return e.InvalidInput("this field is required", field=field)
    if kind == "extra_forbidden":
        unsupported: frozenset[str] = getattr(model, "unsupported", frozenset())
        if path[-1] in unsupported:
            return e.InvalidInput("ragrig does not support this option", field=field)
        near = difflib.get_close_matches(path[-1], list(model.model_fields), n=1)
        hint = f"did you mean {near[0]}?" if near else None
        return e.InvalidInput("unknown field", field=field, hint=hint)
    wanted = " or ".join(dict.fromkeys(p["msg"] for p in problems))
    if not path:
        return e.InvalidInput(wanted.removeprefix("Value error, "))
    return e.InvalidInput(f"{_shown(problems[0]['input'])}: {wanted}", field=field)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 3] + "..."


def _parsed(raw: bytes | None) -> Any:
    try:
        return json.loads(raw or b"null")
    except (ValueError, RecursionError):
        return None


def _path(problem: Any, sent: Any) -> tuple[str, ...]:
    """The location within what was sent, without pydantic's labels for union branches."""
    path: list[str] = []
    here = sent
    for step in problem["loc"]:
        if isinstance(here, dict):
            known = step in here
        else:
            known = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if known:
            here = here[step]
            path.append(str(step)[:_MAX_SHOWN_CHARS])
    if problem["type"] == "missing":
        path.append(str(problem["loc"][-1]))
    return tuple(path)
