"""Errors as JSON, for the pipes between our own processes."""

from __future__ import annotations

from collections.abc import Mapping

from ragschema.errors import InternalError, RagrigError, all_error_types

_MAX_CHARS = 2000


def error_to_dict(error: RagrigError) -> dict[str, str | None]:
    """The body of a line ``{"error": ...}``."""
    return {
        "type": error.type_name,
        "message": error.message[:_MAX_CHARS],
        "field": error.field,
        "hint": error.hint,
    }


def error_from_dict(body: object) -> RagrigError:
    """Rebuilds the typed error; anything unknown is an InternalError."""
    if not isinstance(body, Mapping):
        return InternalError(f"a child process failed: {str(body)[:_MAX_CHARS]}")
    cls = all_error_types().get(str(body.get("type")), InternalError)
    return cls(
        str(body.get("message") or "a child process failed"),
        field=_optional(body.get("field")),
        hint=_optional(body.get("hint")),
    )


def _optional(value: object) -> str | None:
    return str(value) if value else None
