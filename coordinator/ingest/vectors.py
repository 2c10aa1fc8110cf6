"""Vectors of a run: embeds drafted chunks, reads back stored ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.texts import StoredChunk, StoredDocument, TextsFile
from coordinator.collections.tombstones import Mask, live_mask
from coordinator.ingest.embedder import EmbeddingNode
from coordinator.ingest.staging import VectorStaging, document_key
from ragschema.storage.blockfile import MappedBlockFile, map_blockfile
from ragschema.storage.blockhead import corrupt
from ragschema.storage.manifest import SegmentRef, verify_file
from ragschema.types import F32, I64, Metric, ModelInfo

Progress = Callable[[str, int, int], None]

_WINDOW_ROWS = 512
_BATCH_ROWS = 32
_COPY_ROWS = 65_536
_CALLS_AT_ONCE = 2
_MAX_PREFIX_CHARS = 160
_CHARS_PER_TOKEN = 2
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class _Pending:
    row: int
    key: tuple[str, int]
    text: str
    tokens: int


def passage_text(document: StoredDocument, chunk: StoredChunk, max_tokens: int | None) -> str:
    """What is embedded for a chunk: where it stands, then its text.

    The title and headings tell the model what a paragraph is about; they are
    cut short rather than push the chunk's end out of the model's window.
    """
    path = " > ".join(dict.fromkeys((document.title, *chunk.headings)))
    room = _MAX_PREFIX_CHARS
    if max_tokens is not None:
        left = max_tokens - _SPECIAL_TOKENS - chunk.tokens
        room = max(0, min(room, _CHARS_PER_TOKEN * left))
    return f"{path[:room]}\n{chunk.text}" if room else chunk.text


async def embed_draft(
    draft: TextsFile,
    out: F32,
    node: EmbeddingNode,
    model: ModelInfo,
    staging: VectorStaging,
    progress: Progress,
) -> None:
    """Fills ``out`` with the vectors of a draft's rows, reusing staged ones.

    Args:
        out: float32 [rows, dim], memory-mapped.
    """
    total = len(out)
    done = 0
    for window in _windows(draft, model):
        missing: list[_Pending] = []
        for pending in window:
            vector = staging.get(*pending.key)
            if vector is None:
                missing.append(pending)
            else:
                out[pending.row] = vector
                done += 1
        # Texts of like length share a batch, so that little of it is padding.
        missing.sort(key=lambda p: p.tokens)
        batches = [missing[i : i + _BATCH_ROWS] for i in range(0, len(missing), _BATCH_ROWS)]
        for start in range(0, len(batches), _CALLS_AT_ONCE):
            progress("embed", done, total)
            together = batches[start : start + _CALLS_AT_ONCE]
            await _all_of(_embed_batch(batch, out, node, staging) for batch in together)
            done += sum(len(batch) for batch in together)
    progress("embed", done, total)


async def _all_of(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Awaits them together; the first failure cancels the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def _embed_batch(
    batch: list[_Pending], out: F32, node: EmbeddingNode, staging: VectorStaging
) -> None:
    vectors = await node.embed([pending.text for pending in batch], out.shape[1])
    staging.put([pending.key for pending in batch], vectors)
    for pending, vector in zip(batch, vectors, strict=True):
        out[pending.row] = vector


def _windows(draft: TextsFile, model: ModelInfo) -> Iterator[list[_Pending]]:
    """Runs of about _WINDOW_ROWS rows, in order."""
    window: list[_Pending] = []
    for document in draft.documents_in_order("first_row"):
        key = document_key(document.content_hash, document.chunking, model.fingerprint)
        end = document.first_row + document.chunks
        for first in range(document.first_row, end, _WINDOW_ROWS):
            for chunk in draft.chunk_range(first, min(_WINDOW_ROWS, end - first)):
                place = (key, chunk.row_id - document.first_row)
                text = passage_text(document, chunk, model.max_input_tokens)
                window.append(_Pending(chunk.row_id, place, text, chunk.tokens))
                if len(window) >= _WINDOW_ROWS:
                    yield window
                    window = []
    if window:
        yield window


def create_vectors(path: Path, rows: int, dim: int) -> np.memmap[Any, np.dtype[np.float32]]:
    """A new .npy file, float32 [rows, dim], mapped for writing."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))


def copy_live_vectors(snapshot: Snapshot, directory: Path, gone: Mask, out: F32) -> int:
    """Copies the vectors of rows that stay to the front of ``out``, in row order.

    Args:
        gone: bool [next_row_id], rows that do not stay.

    Returns:
        How many rows were copied.
    """
    manifest = snapshot.manifest
    keep = live_mask(manifest.next_row_id, snapshot.deleted) & ~gone
    place = np.cumsum(keep) - 1
    copied = 0
    for segment in manifest.segments:
        for shard in segment.shards:
            file = map_blockfile(verify_file(directory, shard), "shard")
            for rows, vectors in _stored(file, segment):
                wanted = keep[rows]
                block = vectors[wanted].astype(np.float32)
                if manifest.metric is Metric.COSINE and vectors.dtype == np.float16:
                    # Rounding to float16 moved them off unit length a little.
                    block /= np.linalg.norm(block, axis=1, keepdims=True)
                out[place[rows[wanted]]] = block
                copied += len(block)
    return copied


def _stored(
    file: MappedBlockFile, segment: SegmentRef
) -> Iterator[tuple[I64, NDArray[np.float16] | NDArray[np.float32]]]:
    """Row ids and vectors of a shard file, verified, a bounded number at a time."""
    ids, vectors = file.arrays.get("ids"), file.arrays.get("vectors")
    if ids is None or vectors is None or vectors.ndim != 2 or len(ids) != len(vectors):
        raise corrupt(file.path, "holds no vectors")
    if ids.dtype != np.uint32 or vectors.dtype.name not in ("float16", "float32"):
        raise corrupt(file.path, "holds row ids or vectors of another type")
    file.ensure_array("ids")
    start, _ = file.span("vectors")
    row_bytes = vectors.shape[1] * vectors.itemsize
    for low in range(0, len(ids), _COPY_ROWS):
        some = ids[low : low + _COPY_ROWS].astype(np.int64)
        if int(some.max()) >= segment.row_count:
            raise corrupt(file.path, f"holds row ids beyond its {segment.row_count} rows")
        file.ensure(start + low * row_bytes, start + (low + len(some)) * row_bytes)
        yield some + segment.row_start, vectors[low : low + len(some)]
