"""Names that clients choose and that come near paths: collections and documents."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from ragschema.storage.manifest import COLLECTION_NAME

MAX_DOCUMENT_ID_CHARS = 512

_CONTROL = r"\x00-\x1f\x7f"
_SEGMENT = (
    rf"(?:[^./{_CONTROL}][^/{_CONTROL}]*|\.[^./{_CONTROL}][^/{_CONTROL}]*|\.\.[^/{_CONTROL}]+)"
)
#: Relative, no "." or ".." segment, no control characters; free of look-aheads
#: so that every regex engine reads it.
DOCUMENT_ID_PATTERN = rf"^{_SEGMENT}(?:/{_SEGMENT}?)*$"
_DOCUMENT_ID = re.compile(DOCUMENT_ID_PATTERN)


def is_document_id(text: str) -> bool:
    return len(text) <= MAX_DOCUMENT_ID_CHARS and _DOCUMENT_ID.fullmatch(text) is not None


def is_collection_name(text: str) -> bool:
    # fullmatch: the pattern's $ alone would let a trailing newline pass.
    return COLLECTION_NAME.fullmatch(text) is not None


def _check_document_id(text: str) -> str:
    if not is_document_id(text):
        raise PydanticCustomError(
            "document_id",
            "a document id is a relative path without '.' or '..' parts and control characters",
        )
    return text


def _check_collection(text: str) -> str:
    if not is_collection_name(text):
        raise PydanticCustomError(
            "collection_name",
            "a collection name has 1-63 of a-z, 0-9, _ and -, starting with a letter or digit",
        )
    return text


CollectionName = Annotated[
    str,
    Field(json_schema_extra={"pattern": COLLECTION_NAME.pattern}, examples=["docs"]),
    AfterValidator(_check_collection),
]
DocumentId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DOCUMENT_ID_CHARS,
        json_schema_extra={"pattern": DOCUMENT_ID_PATTERN},
        examples=["guides/keys"],
    ),
    AfterValidator(_check_document_id),
]
