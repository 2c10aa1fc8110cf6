"""What one ingestion is asked to do, and what it did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ragschema.errors import InvalidInput
from ragschema.storage.manifest import ChunkingConfig, check_collection_name
from ragschema.types import Metric

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class IngestSpec:
    """One run of ingestion into one collection.

    Attributes:
        llm_address: host:port of the LLM node that embeds.
        num_shards: parts the rows of a new collection are spread over.
        sources: files and folders.
        documents_file: JSON lines of already parsed documents.
        metric: None: the collection's own, cosine for a new one.
        nlist: IVF lists; None: chosen from the data.
        m: PQ bytes per vector; None: chosen from the dimension.
        chunking: None: the collection's own.
        recall: what searches shall reach; None: the collection's own.
        prune: delete documents of these sources that are gone from them.
        strict: skipping anything makes the exit code 1.
    """

    __pydantic_config__ = _STRICT
    data_dir: str
    collection: str
    llm_address: str
    num_shards: Annotated[int, Field(ge=1, le=4096)]
    sources: tuple[str, ...] = ()
    documents_file: str | None = None
    metric: Metric | None = None
    nlist: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    m: Annotated[int, Field(ge=1, le=4096)] | None = None
    chunking: ChunkingConfig | None = None
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    prune: bool = True
    strict: bool = False


@dataclass(frozen=True)
class Skipped:
    """A file or document that was left out."""

    path: str
    reason: str


@dataclass(frozen=True)
class IngestSummary:
    """What a run did; counts are of documents unless they say otherwise.

    Attributes:
        chunks: chunks of added and updated documents.
        live_rows: chunks the collection now holds.
        generation: the collection's state afterwards, 0 when there is none.
        notes: what the user should know, such as why vectors stay exact.
    """

    added: int
    updated: int
    unchanged: int
    deleted: int
    skipped: tuple[Skipped, ...]
    chunks: int
    live_rows: int
    generation: int
    index: Literal["exact", "ivfpq"]
    notes: tuple[str, ...]
    seconds: float

    @property
    def read(self) -> int:
        """Documents that could be read."""
        return self.added + self.updated + self.unchanged


def spec_to_json(spec: IngestSpec) -> str:
    """The text of SPEC.json."""
    return json.dumps(asdict(spec), indent=1)


def spec_from_json(text: str | bytes) -> IngestSpec:
    """Reads and checks SPEC.json.

    Raises:
        InvalidInput: naming the field and what is wrong with it.
    """
    try:
        spec = TypeAdapter(IngestSpec).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise InvalidInput(
            f"{first['msg']} (got {str(first['input'])[:80]!r})", field=where
        ) from error
    check_collection_name(spec.collection)
    if not spec.sources and spec.documents_file is None:
        raise InvalidInput(
            "there is nothing to ingest", field="sources", hint="name a file or folder"
        )
    check_chunking(spec.chunking)
    return spec


def check_chunking(chunking: ChunkingConfig | None) -> None:
    """Raises InvalidInput when chunks would overlap by more than half."""
    if chunking is not None and 2 * chunking.overlap > chunking.tokens:
        raise InvalidInput(
            f"an overlap of {chunking.overlap} is more than half of {chunking.tokens} tokens",
            field="chunking.overlap",
            hint=f"use at most {chunking.tokens // 2}",
        )


def summary_to_dict(summary: IngestSummary) -> dict[str, object]:
    """Plain JSON values."""
    return dict(json.loads(json.dumps(asdict(summary))))


def summary_from_dict(body: object) -> IngestSummary:
    """Rebuilds the summary from a process's last line."""
    return TypeAdapter(IngestSummary).validate_json(json.dumps(body))
