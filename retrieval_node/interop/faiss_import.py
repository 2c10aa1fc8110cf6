"""A faiss index file into the files of a new collection's one segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragschema.types import I64, U8, Metric
from retrieval_node.build_train import write_index
from retrieval_node.build_write import Stored, coded_arrays, write_shard
from retrieval_node.fixedpoint import check_magnitude
from retrieval_node.index_spec import ImportSpec
from retrieval_node.interop.faiss_file import open_index
from retrieval_node.interop.faiss_parts import FaissParts, take_apart
from retrieval_node.layout import deal
from retrieval_node.shard_files import make_index

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

_CHECK_ROWS = 16_384


@dataclass(frozen=True)
class ImportedIndex:
    """What was written; paths are relative to the collection.

    Attributes:
        path: of the index file.
        dim: of queries.
        ids: path of int64 [rows], the faiss id of each row; not part of the collection.
        notes: what may differ from a search by faiss.
    """

    path: str
    metric: Metric
    dim: int
    nlist: int
    m: int
    nprobe: int
    refine_factor: int | None
    residual: bool
    rotated: bool
    shards: tuple[str, ...]
    rows: int
    ids: str
    notes: tuple[str, ...]


def import_index(spec: ImportSpec, progress: Progress) -> ImportedIndex:
    """Reads the file and writes the index and shard files.

    A damaged file may end the process: see ``faiss_file``.

    Rows are numbered by ascending faiss id.

    Raises:
        NotFound, InvalidInput, CorruptData: see ``open_index`` and ``take_apart``.
        OSError: a file of the collection cannot be written.
    """
    parts = take_apart(open_index(Path(spec.file)))
    _check_vectors(parts)
    index = make_index(
        parts.metric, parts.centroids, parts.codebooks, residual=parts.residual,
        rotation=parts.rotation, offset=parts.offset,
    )  # fmt: skip
    directory = Path(spec.collection_dir)
    scratch = directory / "staging" / "import"
    scratch.mkdir(parents=True, exist_ok=True)
    list_of, codes = _by_row(parts, scratch, progress)
    np.save(scratch / "ids.npy", parts.ids)
    path = directory / "index" / f"{spec.index_id}.rag"
    write_index(path, index, {"source": "faiss"})
    stored = None
    if parts.vectors is not None:
        stored = Stored(parts.vectors, parts.vectors.dtype.name)
    shards = []
    layouts = deal(list_of, index.nlist, spec.num_shards, 0)
    for number, layout in enumerate(layouts):
        progress("write", number, spec.num_shards)
        shard = directory / "segments" / spec.segment_id / f"shard-{number}.rag"
        write_shard(shard, number, coded_arrays(layout, index, codes, stored))
        shards.append(shard.relative_to(directory).as_posix())
    progress("write", spec.num_shards, spec.num_shards)
    return ImportedIndex(
        path=path.relative_to(directory).as_posix(),
        metric=parts.metric,
        dim=parts.input_dim,
        nlist=index.nlist,
        m=index.m,
        nprobe=parts.nprobe,
        refine_factor=parts.refine_factor,
        residual=index.residual,
        rotated=index.rotation is not None,
        shards=tuple(shards),
        rows=len(parts.ids),
        ids=(scratch / "ids.npy").relative_to(directory).as_posix(),
        notes=parts.notes,
    )


def _check_vectors(parts: FaissParts) -> None:
    if parts.vectors is None:
        return
    for first in range(0, len(parts.vectors), _CHECK_ROWS):
        block = parts.vectors[first : first + _CHECK_ROWS].astype(np.float32)
        check_magnitude(block, "file")


def _by_row(parts: FaissParts, scratch: Path, progress: Progress) -> tuple[I64, U8]:
    """List of each row, int64 [n], and its code, uint8 [n, m] in a file."""
    n = len(parts.ids)
    list_of = np.empty(n, dtype=np.int64)
    codes = np.lib.format.open_memmap(
        scratch / "codes.npy", mode="w+", dtype=np.uint8, shape=(n, parts.m)
    )
    done = 0
    progress("read", 0, n)
    for number in range(parts.nlist):
        rows, of_list = parts.list_rows(number)
        list_of[rows] = number
        codes[rows] = of_list
        done += len(rows)
        progress("read", done, n)
    return list_of, codes
