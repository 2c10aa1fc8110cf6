"""RAGPulse traces as they are published: arrivals, lengths, and which passages were read.

https://github.com/flashserve/RAGPulse: objects one a line or one after another, packed with gzip
or not. Lengths of passages and other parts stand in files beside the trace.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.load.prompts import Part, PartKind
from ragschema.errors import InvalidInput, NotFound
from ragschema.userfile import first_problem

_MAX_OBJECT_CHARS: Final = 1 << 20
_READ_CHARS: Final = 1 << 16
_HINT: Final = "name a trace of https://github.com/flashserve/RAGPulse, whole"
#: In the order of a prompt: key in ``hash_ids``, file beside the trace, its key of the id.
_PARTS: Final = (
    (PartKind.SYSTEM, "sys_prompt", "sys_prompt", "sys_prompt_id"),
    (PartKind.PASSAGE, "passages_ids", "passages", "passage_id"),
    (PartKind.HISTORY, "history", "history", "history_id"),
    (PartKind.WEB, "web_search", "web_search", "web_search_id"),
    (PartKind.QUESTION, "user_input", "user_input", "user_input_id"),
)
_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=10_000)]
_Tokens = Annotated[int, Field(ge=0, le=100_000_000)]


class _HashIds(BaseModel):
    sys_prompt: _Ids = []
    passages_ids: _Ids = []
    history: _Ids = []
    web_search: _Ids = []
    user_input: _Ids = []


class _Row(BaseModel):
    """A line; numbers may be written as texts, as the timestamps are."""

    model_config = ConfigDict(allow_inf_nan=False)
    timestamp: float
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: _HashIds


@dataclass(frozen=True)
class PulseRequest:
    """One request of the trace.

    Attributes:
        at_s: seconds since the trace's own start.
        parts: of the prompt, in order; they add up to about ``input_tokens``.
        topic: id of the first passage; None: it read none.
        rank: how many passages are first more often than this one; None without a topic.
        question_id, question_tokens: of what the user typed.
    """

    at_s: float
    parts: tuple[Part, ...]
    topic: int | None
    rank: int | None
    question_id: int
    question_tokens: int
    input_tokens: int
    output_tokens: int


def is_ragpulse(path: Path) -> bool:
    """Whether a file begins with an object that has ``hash_ids`` by kind of part.

    Raises:
        NotFound, InvalidInput: it cannot be read.
    """
    if ".jsonl" not in path.suffixes:
        return False
    first = next(_objects(path), {})
    return isinstance(first.get("hash_ids"), dict)


def read_ragpulse(path: Path) -> tuple[PulseRequest, ...]:
    """The requests in the order of their time.

    Raises:
        NotFound: there is no such file.
        InvalidInput: naming the object and the key that is wrong.
    """
    rows = [_row(raw, f"{path}, object {n}") for n, raw in enumerate(_objects(path), start=1)]
    if not rows:
        raise InvalidInput(f"{path} has no requests", field="trace", hint=_HINT)
    rows.sort(key=lambda row: row.timestamp)
    lengths = {kind: _lengths(path, stem, key) for kind, _, stem, key in _PARTS}
    ranks = _ranks(rows)
    return tuple(_request(row, lengths, ranks) for row in rows)


def _row(raw: dict[str, Any], where: str) -> _Row:
    try:
        return _Row.model_validate(raw)
    except ValidationError as error:
        raise first_problem(error, where, _Row, _HINT) from error


def _ranks(rows: list[_Row]) -> dict[int, int]:
    """Passages that are first in a prompt, the most frequent one 0."""
    first = Counter(row.hash_ids.passages_ids[0] for row in rows if row.hash_ids.passages_ids)
    ordered = sorted(first, key=lambda each: (-first[each], each))
    return {passage: rank for rank, passage in enumerate(ordered)}


def _request(
    row: _Row, lengths: dict[PartKind, dict[int, int]], ranks: dict[int, int]
) -> PulseRequest:
    ids = [(kind, each) for kind, key, _, _ in _PARTS for each in getattr(row.hash_ids, key)]
    known = [lengths[kind].get(each) for kind, each in ids]
    # A part without a length takes an equal share of what the others leave.
    left = max(0, row.input_length - sum(n for n in known if n is not None))
    share = left // max(1, known.count(None))
    parts = tuple(
        Part(kind, each, share if tokens is None else tokens)
        for (kind, each), tokens in zip(ids, known, strict=True)
    )
    asked = [p for p in parts if p.kind is PartKind.QUESTION]
    topic = row.hash_ids.passages_ids[0] if row.hash_ids.passages_ids else None
    return PulseRequest(
        at_s=row.timestamp,
        parts=parts or (Part(PartKind.QUESTION, 0, max(1, row.input_length)),),
        topic=topic,
        rank=None if topic is None else ranks[topic],
        question_id=asked[0].number if asked else 0,
        question_tokens=sum(p.tokens for p in asked) or 1,
        input_tokens=row.input_length,
        output_tokens=row.output_length,
    )


def _lengths(trace: Path, stem: str, key: str) -> dict[int, int]:
    """Tokens by id, of the file beside the trace; empty where there is none."""
    beside = sorted(trace.parent.glob(f"*{stem}.jsonl*"))
    found: dict[int, int] = {}
    for path in beside[:1]:
        for number, raw in enumerate(_objects(path), start=1):
            try:
                found[int(raw[key])] = max(0, int(raw["token_length"]))
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidInput(
                    f"{path}, object {number}: needs whole numbers {key!r} and 'token_length'",
                    field="trace",
                    hint=_HINT,
                ) from error
    return found


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """JSON objects of a file, whatever white space is between them."""
    try:
        with _opened(path) as file:
            yield from _decoded(file, path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no trace {path}", hint="check the path") from error
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", field="trace", hint=_HINT) from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _decoded(file: IO[str], path: Path) -> Iterator[dict[str, Any]]:
    decoder, held, number = json.JSONDecoder(), "", 0
    while piece := file.read(_READ_CHARS):
        held, at = held + piece, 0
        while (start := _skip_space(held, at)) < len(held):
            try:
                value, at = decoder.raw_decode(held, start)
            except (ValueError, RecursionError) as error:
                if len(held) - start > _MAX_OBJECT_CHARS:
                    raise _no_object(path, number + 1) from error
                at = start
                break  # the rest of the object is still to be read
            number += 1
            if not isinstance(value, dict):
                raise _no_object(path, number)
            yield value
        held = held[at:]
    if held.strip():
        raise _no_object(path, number + 1)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _no_object(path: Path, number: int) -> InvalidInput:
    return InvalidInput(f"{path}: object {number} is not JSON", field="trace", hint=_HINT)
