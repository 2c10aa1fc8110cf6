"""Builds one segment of a collection, and its index when asked to train one.

Writes ``segments/<segment_id>/shard-<s>.rag`` and ``index/<id>.rag``; each file
appears whole or not at all, and a second run over a half-written folder replaces
what is there. What a killed run had trained and encoded lies in
``staging/build`` until a later run over the same vectors takes it over. The
caller commits the manifest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragschema.errors import Conflict, InternalError, InvalidInput, NotFound, Unavailable
from ragschema.storage.blockfile import StreamedArray
from ragschema.types import F32, Metric
from retrieval_node.build_spec import BuildSpec
from retrieval_node.build_train import BuiltIndex, describe, open_index, trained, write_index
from retrieval_node.build_write import Stored, coded_arrays, exact_arrays, write_shard
from retrieval_node.encode import Progress, encode_all
from retrieval_node.fixedpoint import check_magnitude
from retrieval_node.layout import ShardLayout, deal
from retrieval_node.shard_files import IvfIndex

__all__ = ["BuildResult", "BuiltIndex", "Progress", "build"]

_BLOCK_ROWS = 16_384
_FLOAT16_MAX = 65504.0
_FLOAT16_ERROR = 1e-3
#: Row ids are stored in four bytes, relative to the segment.
_MOST_ROWS = 1 << 32
_FULL_ERRNOS = frozenset({27, 28, 122})  # EFBIG, ENOSPC, EDQUOT


@dataclass(frozen=True)
class BuildResult:
    """What was written; ``index`` is None for exact vectors and an existing index."""

    index: BuiltIndex | None
    shards: tuple[str, ...]
    rows_per_shard: tuple[int, ...]


def build(spec: BuildSpec, progress: Progress) -> BuildResult:
    """Builds what the spec says.

    Raises:
        InvalidInput: vectors that are not float32 [n, dim], not finite, not of
            unit length (cosine), or settings that do not fit them.
        NotFound: there is no vectors file or no collection directory.
        Conflict: another builder works on this collection.
        Unavailable: the disk is full, naming the file.
        CorruptData: the existing index file is damaged.
    """
    directory = Path(spec.collection_dir)
    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory}", field="collection_dir")
    vectors = _open_vectors(Path(spec.vectors))
    float16_holds = _check_vectors(vectors, spec.metric, spec.vector_type)
    try:
        with _alone(directory):
            if spec.index is None:
                return _build_exact(spec, directory, vectors, progress)
            return _build_coded(spec, directory, vectors, float16_holds, progress)
    except OSError as error:
        raise _write_error(error) from error


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One builder per collection; the kernel frees the lock of one that dies."""
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another index builder works in {directory}",
                field="collection_dir",
                hint="wait until it ends, then build again",
            ) from error
        yield
    finally:
        os.close(handle)


def _write_error(error: OSError) -> Unavailable | InternalError:
    where = error.filename or "the collection"
    if error.errno in _FULL_ERRNOS:
        return Unavailable(
            f"no space left to write {where}",
            field="collection_dir",
            hint="free disk space or raise the limit, then run it again; nothing was lost",
        )
    return InternalError(
        f"cannot write {where}: {error.strerror or error}",
        field="collection_dir",
        hint="check that the directory exists and that you may write there",
    )


def _open_vectors(path: Path) -> F32:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", field="vectors") from error
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a .npy file: {error}", field="vectors") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2:
        raise InvalidInput(f"{path} does not hold float32 [n, dim]", field="vectors")
    if array.shape[1] < 1:
        raise InvalidInput(f"{path} holds vectors of dimension 0", field="vectors")
    if len(array) > _MOST_ROWS:
        raise InvalidInput(
            f"{path} holds {len(array)} vectors, a segment takes {_MOST_ROWS}",
            field="vectors",
            hint="build several segments",
        )
    return array


def _check_vectors(vectors: F32, metric: Metric, wanted: str | None) -> bool:
    """Whether float16 keeps every vector to about three digits.

    Raises:
        InvalidInput: naming a vector that cannot be stored.
    """
    holds = True
    for first in range(0, len(vectors), _BLOCK_ROWS):
        block = np.array(vectors[first : first + _BLOCK_ROWS])
        check_magnitude(block, "vectors")
        if metric is Metric.COSINE:
            _check_unit_length(block, first)
        holds = holds and _float16_holds(block)
    if wanted == "float16" and not holds:
        raise InvalidInput(
            "vectors too large or too small for float16",
            field="vectors",
            hint='scale the vectors, or ask for vector_type "float32"',
        )
    return holds


def _check_unit_length(block: F32, first: int) -> None:
    lengths = np.linalg.norm(block, axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1.0) > 1e-3)
    if len(wrong):
        raise InvalidInput(
            f"vector {first + int(wrong[0])} has length {lengths[wrong[0]]:.4g}",
            field="vectors",
            hint="normalise vectors to unit length for cosine",
        )


def _float16_holds(block: F32) -> bool:
    # float64: squares of tiny components must not vanish.
    exact = block.astype(np.float64)
    if np.abs(exact).max(initial=0.0) > _FLOAT16_MAX:
        return False
    error = np.linalg.norm(exact - exact.astype(np.float16), axis=1)
    return not (error > _FLOAT16_ERROR * np.linalg.norm(exact, axis=1)).any()


def _build_exact(spec: BuildSpec, directory: Path, vectors: F32, progress: Progress) -> BuildResult:
    layouts = deal(np.zeros(len(vectors), dtype=np.int64), 1, spec.num_shards, spec.row_start)
    stored = Stored(vectors, spec.vector_type or "float32")
    return _write_shards(
        spec, directory, layouts, lambda layout: exact_arrays(layout, stored), None, progress
    )


def _build_coded(
    spec: BuildSpec, directory: Path, vectors: F32, float16_holds: bool, progress: Progress
) -> BuildResult:
    assert spec.index is not None, "the caller looked"
    scratch = directory / "staging" / "build"
    index, built, refine = _index(spec, directory, vectors, scratch, progress)
    threads = spec.threads or len(os.sched_getaffinity(0))
    encoded = encode_all(vectors, index, scratch, threads, progress)
    lists = encoded.lists().astype(np.int64)
    layouts = deal(lists, index.nlist, spec.num_shards, spec.row_start)
    del lists
    codes = encoded.codes()
    stored = None
    if refine:
        fitting = "float16" if float16_holds else "float32"
        stored = Stored(vectors, spec.vector_type or fitting)
    result = _write_shards(
        spec, directory, layouts, lambda layout: coded_arrays(layout, index, codes, stored), built,
        progress,
    )  # fmt: skip
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def _index(
    spec: BuildSpec, directory: Path, vectors: F32, scratch: Path, progress: Progress
) -> tuple[IvfIndex, BuiltIndex | None, bool]:
    """The index to encode with, what to say of a new one, and whether it refines."""
    choice = spec.index
    assert choice is not None, "the caller looked"
    train = choice.train
    if train is None:
        assert choice.existing is not None, "checked when the spec was read"
        dim = vectors.shape[1]
        index = open_index(directory, choice.existing, spec.metric, dim, choice.residual)
        return index, None, spec.refine
    index = trained(vectors, spec.metric, train, scratch, progress)
    path = directory / "index" / f"{train.id}.rag"
    write_index(path, index, {"seed": train.seed})
    built = describe(vectors, index, train, path.relative_to(directory).as_posix())
    return index, built, built.refine_factor is not None


def _write_shards(
    spec: BuildSpec,
    directory: Path,
    layouts: list[ShardLayout],
    arrays: Callable[[ShardLayout], list[StreamedArray]],
    built: BuiltIndex | None,
    progress: Progress,
) -> BuildResult:
    folder = directory / "segments" / spec.segment_id
    paths = []
    progress("write", 0, len(layouts))
    for number, layout in enumerate(layouts):
        path = folder / f"shard-{number}.rag"
        write_shard(path, number, arrays(layout))
        paths.append(path.relative_to(directory).as_posix())
        progress("write", number + 1, len(layouts))
    return BuildResult(built, tuple(paths), tuple(len(x.rows) for x in layouts))
