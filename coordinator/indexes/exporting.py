"""A collection's index becomes a faiss file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from coordinator.indexes.child import run_index_command
from coordinator.ingest.node_command import Progress
from ragschema.errors import InternalError
from ragschema.storage.manifest import collection_dir


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: live rows; their faiss ids are the collection's row ids.
        encoded: how many of them were kept as vectors and encoded for the file.
    """

    file: str
    rows: int
    encoded: int


async def export_faiss(data_dir: Path, collection: str, file: Path, progress: Progress) -> Exported:
    """Writes the committed state's live rows, whole or not at all.

    Raises:
        NotFound: there is no such collection.
        Conflict: the file exists.
        IncompatibleRequest: the collection has no index.
        CorruptData: the collection is damaged, naming the file.
        Unavailable: the disk is full.
    """
    directory = collection_dir(data_dir, collection)
    spec = {"collection_dir": str(directory), "file": str(file)}
    raw = await run_index_command("index-export", spec, progress)
    try:
        return TypeAdapter(Exported).validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InternalError(f"the export's result is malformed: {raw}") from error
