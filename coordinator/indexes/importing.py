"""A faiss index file becomes a collection."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from coordinator.collections.commit import commit
from coordinator.collections.store import (
    CollectionSpec,
    CollectionStore,
    empty_manifest,
)
from coordinator.indexes.child import run_index_command
from coordinator.indexes.texts import read_ids, write_texts
from coordinator.ingest.node_command import Progress
from ragschema.errors import InternalError, NotFound
from ragschema.storage.manifest import (
    IndexRef,
    Manifest,
    SegmentRef,
    file_ref,
    sync_directory,
)
from ragschema.types import Metric

_SEGMENT = "seg-000001"
_INDEX = "idx-000001"


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        texts: one line per vector, by ascending faiss id; None: hits bear ids only.
    """

    data_dir: Path
    collection: str
    file: Path
    texts: Path | None
    num_shards: int


@dataclass(frozen=True)
class _Imported:
    """The retrieval node's report; see its ``ImportedIndex``."""

    path: str
    metric: Metric
    dim: Annotated[int, Field(ge=1)]
    nlist: Annotated[int, Field(ge=1)]
    m: Annotated[int, Field(ge=1)]
    nprobe: Annotated[int, Field(ge=1)]
    refine_factor: Annotated[int, Field(ge=1)] | None
    residual: bool
    rotated: bool
    shards: tuple[str, ...]
    rows: Annotated[int, Field(ge=1)]
    ids: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """The committed collection, and what may differ from a search by faiss."""

    manifest: Manifest
    notes: tuple[str, ...]


async def import_faiss(request: ImportRequest, progress: Progress) -> Imported:
    """Makes a new collection of the file, whole or not at all.

    Raises:
        Conflict: the collection exists, or somebody is making it.
        NotFound: there is no such file.
        InvalidInput: the index is of a kind that is not taken, or the texts do not fit.
        CorruptData: the file is damaged.
        Unavailable: the disk is full.
    """
    store = CollectionStore(request.data_dir)
    with store.making(request.collection) as directory:
        return await _into(directory, request, store, progress)


async def _into(
    directory: Path, request: ImportRequest, store: CollectionStore, progress: Progress
) -> Imported:
    if request.texts is not None and not request.texts.is_file():
        raise NotFound(f"there is no file {request.texts}", field="texts")
    folder = directory / "segments" / _SEGMENT
    folder.mkdir(parents=True)
    spec = {
        "file": str(request.file),
        "collection_dir": str(directory),
        "segment_id": _SEGMENT,
        "index_id": _INDEX,
        "num_shards": request.num_shards,
    }
    raw = await run_index_command("index-import", spec, progress, reads=request.file)
    imported = _checked(raw)
    texts = folder / "texts.sqlite"
    ids = read_ids(directory / imported.ids)
    write_texts(texts, ids, request.texts, lambda done: progress("texts", done, imported.rows))
    progress("texts", imported.rows, imported.rows)
    for written in (folder, folder.parent, directory / "index", directory, directory.parent):
        sync_directory(written)
    segment = SegmentRef(
        id=_SEGMENT,
        row_start=0,
        row_count=imported.rows,
        shards=tuple(file_ref(directory, directory / path) for path in imported.shards),
        texts=file_ref(directory, texts),
    )
    manifest = _manifest(request, store, imported, segment, directory)
    commit(directory, manifest, None)
    shutil.rmtree(directory / "staging", ignore_errors=True)
    return Imported(manifest, imported.notes)


def _manifest(
    request: ImportRequest, store: CollectionStore, imported: _Imported, segment: SegmentRef,
    directory: Path,
) -> Manifest:  # fmt: skip
    # No embedder: nothing in the file tells which model its vectors are of.
    spec = CollectionSpec(imported.dim, imported.metric, request.num_shards, None)
    first = store.first_generation(request.collection)
    return replace(
        empty_manifest(request.collection, spec, first),
        index=IndexRef(
            file=file_ref(directory, directory / imported.path),
            nlist=imported.nlist,
            m=imported.m,
            nprobe=imported.nprobe,
            refine_factor=imported.refine_factor,
            residual=imported.residual,
            rotated=imported.rotated,
        ),
        segments=(segment,),
        next_row_id=imported.rows,
        live_rows=imported.rows,
        live_documents=imported.rows,
    )


def _checked(raw: dict[str, Any]) -> _Imported:
    try:
        return TypeAdapter(_Imported).validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InternalError(f"the import's result is malformed: {raw}") from error
