"""Text files that users write: read, parsed and checked with messages that name the mistake."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from ragschema.errors import InvalidInput, NotFound
from ragschema.plainyaml import load_plain_yaml

_T = TypeVar("_T")
_UNKNOWN: Final = ("unexpected_keyword_argument", "extra_forbidden")


def read_user_text(path: Path, field: str, hint: str) -> str:
    """The text of a file.

    Args:
        field: what the file is, such as ``pool``; for messages.
        hint: what to do where there is none.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no {field} file {path}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}", field=field, hint="name a text file in UTF-8"
        ) from error


def write_user_text(path: Path, text: str, field: str) -> None:
    """Raises InvalidInput, naming the option ``field``, when the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"cannot write {path}: {error}", field=field, hint="name a file that can be written"
        ) from error


def checked_yaml(text: str, source: str, kind: type[_T], hint: str) -> _T:
    """A YAML text as a validated object.

    Raises:
        InvalidInput: naming the key, the value and what is allowed.
    """
    # JSON mode: strict about types, yet takes whole numbers where fractions are meant.
    raw = json.dumps(load_plain_yaml(text, source), default=str)
    try:
        return TypeAdapter(kind).validate_json(raw)
    except ValidationError as error:
        raise first_problem(error, source, kind, hint) from error


def first_problem(error: ValidationError, source: str, kind: Any, hint: str) -> InvalidInput:
    """What to say of a validation error: unknown keys first, with the nearest known one.

    A misspelt key is also a missing one; the first tells more. Parts in brackets are tags of
    a union's members, and not in the file.
    """
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] in _UNKNOWN), problems[0])
    place = tuple(p for p in problem["loc"] if not str(p).startswith("("))
    field = ".".join(str(part) for part in place)
    if problem["type"] in _UNKNOWN:
        known = keys_at(kind, place[:-1])
        near = nearest(str(place[-1]), known) if known else hint
        return InvalidInput(f"{source}: unknown key", field=field, hint=near)
    return InvalidInput(f"{source}: {problem['input']!r}: {problem['msg']}", field=field, hint=hint)


def keys_at(kind: Any, place: Sequence[str | int]) -> list[str]:
    """Keys that may stand at a place in a file, such as ``("database", "curve", 0)``."""
    here = _models(kind)
    for part in place:
        if isinstance(part, str):  # a number is a place in a list, whose elements are here
            here = [m for model in here for m in _models(get_type_hints(model).get(part))]
    return list(dict.fromkeys(name for model in here for name in _keys(model)))


def _models(kind: Any) -> list[Any]:
    """Dataclasses and models that a type is, or is a union or a list of."""
    if isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel)):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]


def _keys(model: Any) -> list[str]:
    if is_dataclass(model):
        return [f.name for f in fields(model)]
    return [field.alias or name for name, field in model.model_fields.items()]


def nearest(wrong: str, known: Sequence[str]) -> str:
    """A hint for an unknown key: the nearest known one, or all of them."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
