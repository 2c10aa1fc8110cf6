"""What the index commands are asked for: small JSON files, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class ImportSpec:
    """A faiss file to take over into a collection that holds nothing yet.

    Attributes:
        file: of a faiss index.
        collection_dir: where index and segment are written.
    """

    __pydantic_config__ = _STRICT
    file: str
    collection_dir: str
    segment_id: Annotated[str, Field(pattern=r"^seg-[0-9]{6}$")]
    index_id: Annotated[str, Field(pattern=r"^idx-[0-9]{6}$")]
    num_shards: Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class ExportSpec:
    """A collection to write as a faiss index; ``file`` must not exist."""

    __pydantic_config__ = _STRICT
    collection_dir: str
    file: str


@dataclass(frozen=True)
class TuneSpec:
    """A collection whose recall is to be measured.

    Attributes:
        recall: what is wanted.
        k: rows per query that it is wanted of.
        queries: float32 [n, dim] .npy file; None: rows of the collection.
        truth: int64 [n, at least max(k, 10)] .npy file, row ids of the true
            neighbours, nearest first; None: found by exact search.
        sample: how many rows serve as queries.
        threads: that search.
    """

    __pydantic_config__ = _STRICT
    collection_dir: str
    recall: Annotated[float, Field(gt=0, le=1)]
    k: Annotated[int, Field(ge=1, le=100)] = 10
    queries: str | None = None
    truth: str | None = None
    sample: Annotated[int, Field(ge=1, le=10_000)] = 500
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
