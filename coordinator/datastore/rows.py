"""What a row of a datastore holds beside its vector.

A datastore is a collection like any other: its vectors are states in front of
tokens, compared by L2; a row's text is the id of the token that followed, in
decimal. A document is a window of a text, which its metadata say.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.collections.texts import StoredChunk
from coordinator.types import Hit
from ragschema.errors import IncompatibleRequest

#: Metadata key of every document of a datastore.
KIND_KEY = "datastore"
KIND = "knnlm"


def chunks_of(tokens: Sequence[int], first_row: int, doc: int, key: str) -> list[StoredChunk]:
    """Rows of a window; ``start`` and ``end`` count tokens."""
    return [
        StoredChunk(
            row_id=first_row + place,
            doc=doc,
            chunk_id=f"{key}:{place}",
            start=place,
            end=place + 1,
            tokens=1,
            headings=(),
            text=str(token),
        )
        for place, token in enumerate(tokens)
    ]


def next_token_of(hit: Hit) -> int:
    """The token behind a row's state; IncompatibleRequest when it is no row of a datastore."""
    text = hit.chunk.text
    if hit.chunk.metadata.get(KIND_KEY) != KIND or not text.isdecimal():
        raise IncompatibleRequest(
            f"row {hit.chunk.row_id} of the collection holds no next token",
            field="generation.knn.collection",
            hint="make a datastore with `ragrig index knnlm`",
        )
    return int(text)
