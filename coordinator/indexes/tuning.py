"""Measuring a collection's recall and setting how it is searched."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from coordinator.collections.commit import commit, utc_now
from coordinator.collections.store import CollectionStore, storage_error
from coordinator.indexes.child import run_index_command
from coordinator.ingest.node_command import Progress
from ragschema.errors import InternalError
from ragschema.storage.manifest import CurvePoint, IndexRef, Manifest, read_manifest


@dataclass(frozen=True)
class TuneRequest:
    """What to reach, and how to measure it.

    Attributes:
        recall: wanted, of the k nearest.
        queries: float32 [n, dim] .npy file; None: rows of the collection.
        truth: int64 [n, k] .npy file of row ids; None: by exact search.
        sample: rows that serve as queries.
    """

    data_dir: Path
    collection: str
    recall: float
    k: int = 10
    queries: Path | None = None
    truth: Path | None = None
    sample: int = 500
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """The retrieval node's report; see its own ``Measured``."""

    generation: int
    nprobe: Annotated[int, Field(ge=1)]
    refine_factor: Annotated[int, Field(ge=1)] | None
    recall: Annotated[float, Field(ge=0, le=1)]
    reached: bool
    curve: tuple[CurvePoint, ...]
    at_k: tuple[CurvePoint, ...]
    queries: int
    refines: bool


@dataclass(frozen=True)
class Tuned:
    """What was measured, and the state that was committed with it."""

    measured: Measured
    manifest: Manifest


async def tune_collection(request: TuneRequest, progress: Progress) -> Tuned:
    """Measures, then commits the curve and the settings; nobody else may write meanwhile.

    Out of reach, the best settings are set.

    Raises:
        NotFound: there is no such collection or file.
        Conflict: somebody is changing the collection.
        InvalidInput, IncompatibleRequest: it cannot be measured that way, with the fix.
        CorruptData: the collection is damaged, naming the file.
    """
    store = CollectionStore(request.data_dir)
    directory = store.directory(request.collection)
    read_manifest(directory)  # no lock file for what is not there
    try:
        with store.lock(request.collection):
            manifest = read_manifest(directory)
            raw = await run_index_command(
                "index-tune", _spec(request, directory), progress, threads=request.threads
            )
            measured = _checked(raw)
            tuned = _with(manifest, measured, request.recall)
            commit(directory, tuned, manifest)
    except OSError as error:
        raise storage_error(error, f"cannot change collection {request.collection!r}") from error
    return Tuned(measured, tuned)


def _spec(request: TuneRequest, directory: Path) -> dict[str, object]:
    return {
        "collection_dir": str(directory),
        "recall": request.recall,
        "k": request.k,
        "queries": None if request.queries is None else str(request.queries.absolute()),
        "truth": None if request.truth is None else str(request.truth.absolute()),
        "sample": request.sample,
        "threads": request.threads,
    }


def _with(manifest: Manifest, measured: Measured, recall: float) -> Manifest:
    index = manifest.index
    assert index is not None, "collections without an index are refused"
    if measured.generation != manifest.generation:
        raise InternalError("another state was measured than the lock protects")
    return replace(
        manifest,
        generation=manifest.generation + 1,
        created_at=utc_now(),
        index=replace(
            index,
            nprobe=measured.nprobe,
            refine_factor=_refine_factor(index, measured),
            curve=tuple(sorted(measured.curve, key=lambda p: p.codes_per_query)),
        ),
        # A standing wish would win over the settings: it follows the new one.
        recall=None if manifest.recall is None else recall,
    )


def _refine_factor(index: IndexRef, measured: Measured) -> int | None:
    """Not None where the collection refines: its later segments have to keep vectors."""
    if measured.refine_factor is None and index.refine_factor is not None:
        return 1
    return measured.refine_factor


def _checked(raw: dict[str, Any]) -> Measured:
    try:
        return TypeAdapter(Measured).validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InternalError(f"the measurement's result is malformed: {raw}") from error
