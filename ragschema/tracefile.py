"""One column of numbers of a recorded trace: CSV, or JSON lines, packed with gzip or not."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ragschema.errors import InvalidInput, NotFound

TraceName = Annotated[str, Field(pattern=r"^.{1,4000}\.(csv|jsonl)(\.gz)?$")]

_MAX_ROWS = 5_000_000
_MAX_LINE_BYTES = 1 << 20


def trace_column(path: Path, column: str, field: str) -> NDArray[np.float64]:
    """The numbers of one column, in the file's order: float64 [rows], at least one.

    Args:
        field: where the column is named, for messages.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the line, where a number is missing or is none.
    """
    values: list[float] = []
    try:
        with _opened(path) as file:
            for number, row in _rows(file, path, field):
                values.append(_number(row, column, f"{path} line {number}", field))
                if len(values) > _MAX_ROWS:
                    raise InvalidInput(
                        f"{path} has more than {_MAX_ROWS} rows",
                        field=field,
                        hint="take a sample of them",
                    )
    except FileNotFoundError as error:
        raise NotFound(f"there is no trace {path}", hint="check the path") from error
    except (OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}", field=field, hint="name a text file in UTF-8"
        ) from error
    if not values:
        raise InvalidInput(f"{path} has no rows", field=field, hint="name another trace")
    return np.array(values)


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _rows(file: IO[str], path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _lines(file, path, field)
    if ".csv" in path.suffixes:
        reader = csv.DictReader(lines)
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"{path} line {number} is not JSON", field=field, hint="write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(
                f"{path} line {number} is no object", field=field, hint="write one object a line"
            )
        yield number, row


def _lines(file: IO[str], path: Path, field: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            raise InvalidInput(
                f"{path} line {number} is longer than {_MAX_LINE_BYTES} characters",
                field=field,
                hint="write one object a line",
            )
        yield line


def _number(row: dict[str, Any], column: str, where: str, field: str) -> float:
    if column not in row:
        raise InvalidInput(
            f"{where} has no {column!r}",
            field=field,
            hint=f"use one of {', '.join(str(key) for key in row)[:200]}",
        )
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(
            f"{where}: {str(row[column])[:80]!r} is no number",
            field=field,
            hint="drop the row, or name another column",
        )
    return value
