"""The prompt of the role rewrite, and what of the answer is a query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ragschema.errors import InvalidInput
from ragschema.types import ChatMessage

_FIELD: Final = "rewrite_template"
_NAMES: Final = ("question", "history", "max_queries")
_PLACE = re.compile(r"\{([a-z_]+)\}")
_MAX_BYTES: Final = 64 << 10
_MAX_QUERY_CHARS: Final = 512
#: Bullets and numbers in front of a line, and quotes around it.
_MARK = re.compile(r"^\s*(?:[-*+\u2022]|\(?\d{1,3}[.):])(?:\s+|$)")
_QUOTES: Final = "\"'`\u201c\u201d\u2018\u2019"

_DEFAULT: Final = """\
You write queries for a search engine over documents. Rewrite the last question below so that a
query can be understood without the conversation: put in what words like "it" or "they" mean.
If the question asks for several things, write one query for each, at most {max_queries}.
Write one query per line and nothing else. Do not answer the question.

Conversation so far:
{history}

Last question: {question}

Queries:"""


@dataclass(frozen=True)
class Template:
    """A text with ``{question}`` and, where wanted, ``{history}`` and ``{max_queries}``."""

    text: str

    def __post_init__(self) -> None:
        unknown = [name for name in _PLACE.findall(self.text) if name not in _NAMES]
        if unknown:
            raise InvalidInput(
                f"the template has a place for {{{unknown[0]}}}",
                field=_FIELD,
                hint=f"use {', '.join(f'{{{name}}}' for name in _NAMES)}",
            )
        if "{question}" not in self.text:
            raise InvalidInput(
                "the template has no place for the question",
                field=_FIELD,
                hint="write {question} where it belongs",
            )

    def fill(self, question: str, history: Sequence[ChatMessage], max_queries: int) -> str:
        """The prompt; what is filled in is never read as a place itself."""
        turns = "\n".join(f"{turn.role}: {turn.content}" for turn in history)
        values = {
            "question": question,
            "history": turns or "(none)",
            "max_queries": str(max_queries),
        }
        return _PLACE.sub(lambda place: values[place.group(1)], self.text)


def load_template(path: str | None) -> Template:
    """The template of a UTF-8 file; None: the default one.

    Raises:
        InvalidInput: the file is missing, too large or no template; names it.
    """
    if path is None:
        return Template(_DEFAULT)
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}", field=_FIELD, hint="name a text file in UTF-8"
        ) from error
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path} has more than {_MAX_BYTES} bytes", field=_FIELD)
    return Template(text)


def queries_in(text: str, max_queries: int) -> tuple[str, ...]:
    """A query per line, without marks and quotes; repeated and overlong ones are left out.

    A line that is nothing but marks is none: models begin lists that they do not fill.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        query = " ".join(_MARK.sub("", line).strip().strip(_QUOTES).split())
        if query and not _MARK.fullmatch(query) and len(query) <= _MAX_QUERY_CHARS:
            found.setdefault(query.casefold(), query)
    return tuple(found.values())[:max_queries]
