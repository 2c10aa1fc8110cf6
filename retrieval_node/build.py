"""Builds one segment of a collection, and its index when asked to train one.

Writes ``segments/<segment_id>/shard-<s>.rag`` and ``index/<id>.rag`` and
nothing else; each file appears whole or not at all, and a second run over a
half-written folder replaces what is there. The caller commits the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData, InvalidInput, NotFound
from ragschema.storage.blockfile import read_blockfile, write_blockfile
from ragschema.storage.manifest import sync_directory
from ragschema.types import F32, I64, U8, Metric
from retrieval_node import training, tuning
from retrieval_node.build_spec import BuildSpec, TrainSpec
from retrieval_node.fixedpoint import check_magnitude
from retrieval_node.layout import ShardLayout, deal
from retrieval_node.shard_files import INDEX_KIND, SHARD_KIND, IvfIndex, index_from_file

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]

_BLOCK_ROWS = 16_384
_TUNE_ROWS = 100_000
_TRAIN_STEPS = 3
_FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class BuiltIndex:
    """A new index, for the manifest; ``path`` is relative to the collection.

    ``recall_at_10`` is what was measured while nprobe and refine_factor were chosen.
    """

    path: str
    nlist: int
    m: int
    nprobe: int
    refine_factor: int | None
    recall_at_10: float


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
        CorruptData: the existing index file is damaged.
    """
    directory = Path(spec.collection_dir)
    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory}", field="collection_dir")
    vectors = _open_vectors(Path(spec.vectors))
    _check_vectors(vectors, spec.metric)
    if spec.index is None:
        return _build_exact(spec, directory, vectors, progress)
    if spec.index.train is not None:
        index, built = _train(spec, spec.index.train, directory, vectors, progress)
        refine = built.refine_factor is not None
    else:
        assert spec.index.existing is not None, "checked when the spec was read"
        index, built = _open_index(directory, spec.index.existing, vectors.shape[1]), None
        refine = spec.refine
        if refine and not _float16_holds(vectors):
            raise InvalidInput(
                "vectors too large or too small for float16",
                field="vectors",
                hint="scale the vectors, or rebuild the collection without refinement",
            )
    list_of, codes = _encode(vectors, index, spec.metric, progress)
    layouts = deal(list_of, index.nlist, spec.num_shards, spec.row_start)

    def arrays(layout: ShardLayout) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {
            "list_offsets": layout.list_offsets,
            "ids": layout.rows + spec.row_start,
            "codes": codes[layout.rows],
        }
        if refine:
            found["vectors"] = _gather(vectors, layout.rows, np.float16)
        return found

    return _write_shards(spec, directory, layouts, arrays, built, progress)


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
    return array


def _blocks(n: int) -> list[tuple[int, int]]:
    return [(a, min(n, a + _BLOCK_ROWS)) for a in range(0, n, _BLOCK_ROWS)]


def _check_vectors(vectors: F32, metric: Metric) -> None:
    for first, last in _blocks(len(vectors)):
        block = np.array(vectors[first:last])
        check_magnitude(block, "vectors")
        if metric is Metric.COSINE:
            lengths = np.linalg.norm(block, axis=1)
            wrong = np.flatnonzero(np.abs(lengths - 1.0) > 1e-3)
            if len(wrong):
                raise InvalidInput(
                    f"vector {first + int(wrong[0])} has length {lengths[wrong[0]]:.4g}",
                    field="vectors",
                    hint="normalise vectors to unit length for cosine",
                )


def _float16_holds(vectors: F32) -> bool:
    """Whether float16 keeps every vector to about three digits."""
    for first, last in _blocks(len(vectors)):
        # float64: squares of tiny components must not vanish.
        block = np.array(vectors[first:last], dtype=np.float64)
        if np.abs(block).max(initial=0.0) > _FLOAT16_MAX:
            return False
        error = np.linalg.norm(block - block.astype(np.float16), axis=1)
        if (error > 1e-3 * np.linalg.norm(block, axis=1)).any():
            return False
    return True


def _build_exact(spec: BuildSpec, directory: Path, vectors: F32, progress: Progress) -> BuildResult:
    layouts = deal(np.zeros(len(vectors), dtype=np.int64), 1, spec.num_shards, spec.row_start)

    def arrays(layout: ShardLayout) -> dict[str, NDArray[Any]]:
        return {
            "ids": layout.rows + spec.row_start,
            "vectors": _gather(vectors, layout.rows, np.float32),
        }

    return _write_shards(spec, directory, layouts, arrays, None, progress)


def _gather(vectors: F32, rows: I64, dtype: type[np.generic]) -> NDArray[Any]:
    out = np.empty((len(rows), vectors.shape[1]), dtype=dtype)
    for first, last in _blocks(len(rows)):
        out[first:last] = vectors[rows[first:last]]
    return out


def _train(
    spec: BuildSpec, train: TrainSpec, directory: Path, vectors: F32, progress: Progress
) -> tuple[IvfIndex, BuiltIndex]:
    n, dim = vectors.shape
    if n == 0:
        raise InvalidInput("there is no vector to train on", field="vectors")
    nlist, m = training.check_shape(n, dim, train.nlist, train.m)
    progress("train", 0, _TRAIN_STEPS)
    sample = np.array(vectors[training.sample_rows(n, nlist, train.seed)])
    centroids = training.train_centroids(sample, nlist, spec.metric, train.seed)
    progress("train", 1, _TRAIN_STEPS)
    residuals = sample - centroids[training.assign(sample, centroids, spec.metric)]
    shuffled = np.random.default_rng(train.seed).permutation(len(residuals))
    codebooks = training.train_codebooks(residuals[shuffled], m, train.seed)
    index = IvfIndex(centroids, codebooks, np.ascontiguousarray(codebooks.transpose(0, 2, 1)))
    progress("train", 2, _TRAIN_STEPS)
    tuned = _tuned(
        vectors, index, spec.metric, train.refine and _float16_holds(vectors), train.seed
    )
    path = directory / "index" / f"{train.id}.rag"
    _write_whole(
        path, INDEX_KIND, {"metric": str(spec.metric), "seed": train.seed},
        {"centroids": centroids, "codebooks": codebooks},
    )  # fmt: skip
    progress("train", _TRAIN_STEPS, _TRAIN_STEPS)
    return index, BuiltIndex(
        path=path.relative_to(directory).as_posix(),
        nlist=nlist,
        m=m,
        nprobe=tuned.nprobe,
        refine_factor=tuned.refine_factor,
        recall_at_10=tuned.recall,
    )


def _tuned(vectors: F32, index: IvfIndex, metric: Metric, refine: bool, seed: int) -> tuning.Tuned:
    """Settings measured on at most 100 000 vectors. A thinner collection has
    farther neighbours, so the choice errs to the safe side."""
    n = len(vectors)
    rows = np.arange(n)
    if n > _TUNE_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(n, _TUNE_ROWS, replace=False))
    some = np.array(vectors[rows])
    list_of, codes = _encode(some, index, metric, lambda *_: None)
    return tuning.tune(some, list_of, codes, index, metric, refine, seed, n)


def _open_index(directory: Path, relative: str, dim: int) -> IvfIndex:
    path = (directory / relative).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise InvalidInput(f"{relative} leaves the collection", field="index.existing")
    file = read_blockfile(path, INDEX_KIND)
    centroids = file.arrays.get("centroids")
    if centroids is not None and centroids.ndim == 2 and centroids.shape[1] != dim:
        raise InvalidInput(
            f"vectors have {dim} components, the index has {centroids.shape[1]}",
            field="vectors",
            hint="embed with the collection's own embedder",
        )
    try:
        return index_from_file(file, None, None, dim)
    except (ValueError, IndexError) as error:
        raise CorruptData(f"{path}: {error}", field=str(path)) from error


def _encode(vectors: F32, index: IvfIndex, metric: Metric, progress: Progress) -> tuple[I64, U8]:
    """The list of each vector and the PQ code of its residual, block by block."""
    n = len(vectors)
    list_of = np.empty(n, dtype=np.int64)
    codes = np.empty((n, index.m), dtype=np.uint8)
    encode = training.encoder(index.codebooks)
    progress("encode", 0, n)
    for first, last in _blocks(n):
        block = np.array(vectors[first:last])
        nearest = training.assign(block, index.centroids, metric)
        list_of[first:last] = nearest
        codes[first:last] = encode(block - index.centroids[nearest])
        progress("encode", last, n)
    return list_of, codes


def _write_shards(
    spec: BuildSpec,
    directory: Path,
    layouts: list[ShardLayout],
    arrays: Callable[[ShardLayout], dict[str, NDArray[Any]]],
    built: BuiltIndex | None,
    progress: Progress,
) -> BuildResult:
    folder = directory / "segments" / spec.segment_id
    paths = []
    progress("write", 0, len(layouts))
    for number, layout in enumerate(layouts):
        path = folder / f"shard-{number}.rag"
        _write_whole(path, SHARD_KIND, {"shard": number}, arrays(layout))
        paths.append(path.relative_to(directory).as_posix())
        progress("write", number + 1, len(layouts))
    return BuildResult(built, tuple(paths), tuple(len(x.rows) for x in layouts))


def _write_whole(
    path: Path, kind: str, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """A file that is there complete, or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    write_blockfile(draft, kind, meta, arrays)
    os.replace(draft, path)
    sync_directory(path.parent)
    sync_directory(path.parent.parent)
