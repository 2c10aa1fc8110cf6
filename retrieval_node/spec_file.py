"""Reading the small JSON file that says what a command shall do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ragschema.errors import InvalidInput, NotFound

T = TypeVar("T")


def read_spec(path: Path, kind: type[T]) -> T:
    """The file as the dataclass it must be.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the key that is wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", field="spec") from error
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(f"{path}: {problem['msg']}", field=where or "spec") from error
