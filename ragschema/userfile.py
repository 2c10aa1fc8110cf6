"""Text files that users write: read, parsed and checked with messages that name the mistake."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ragschema.errors import InvalidInput, NotFound
from ragschema.plainyaml import load_plain_yaml

_T = TypeVar("_T")


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
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(
            f"{source}: {problem['input']!r}: {problem['msg']}",
            field=".".join(str(part) for part in problem["loc"]),
            hint=hint,
        ) from error


def nearest(wrong: str, known: Sequence[str]) -> str:
    """A hint for an unknown key: the nearest known one, or all of them."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
