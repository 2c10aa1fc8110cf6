"""Training a new index on a sample, and opening one that is there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData, InvalidInput
from ragschema.storage.blockfile import StreamedArray, read_blockfile
from ragschema.storage.manifest import CurvePoint
from ragschema.types import F32, Metric
from retrieval_node import training
from retrieval_node.build_spec import TrainSpec
from retrieval_node.build_write import write_whole
from retrieval_node.encode import Encoder, Progress
from retrieval_node.shard_files import INDEX_KIND, IvfIndex, index_from_file

if TYPE_CHECKING:
    from retrieval_node.tuning import Tuned

_TUNE_ROWS = 100_000
#: What unmeasured indexes are searched with: a 32nd of the lists, at least 8.
_UNMEASURED_SHARE = 32
_UNMEASURED_LEAST = 8
_UNMEASURED_FACTOR = 8


@dataclass(frozen=True)
class BuiltIndex:
    """A new index, for the manifest; ``path`` is relative to the collection.

    Attributes:
        recall_at_10: what was measured with nprobe and refine_factor; None: nothing was.
        curve: everything that was measured.
    """

    path: str
    nlist: int
    m: int
    nprobe: int
    refine_factor: int | None
    residual: bool
    rotated: bool
    recall_at_10: float | None
    curve: tuple[CurvePoint, ...]


def trained(
    vectors: F32, metric: Metric, spec: TrainSpec, scratch: Path, progress: Progress
) -> IvfIndex:
    """A new index, or the one that a killed build of the same sample left.

    Args:
        vectors: float32 [n, dim], mapped; a bounded sample of it is read.
        scratch: folder for the unfinished build's own files.

    Raises:
        InvalidInput: nlist or m do not fit the vectors.
    """
    n, dim = vectors.shape
    if n == 0:
        raise InvalidInput("there is no vector to train on", field="vectors")
    nlist, m = training.check_shape(n, dim, spec.nlist, spec.m)
    plan = training.TrainPlan(nlist, m, spec.seed, opq=spec.rotate, residual=spec.residual)
    steps = training.TRAIN_STEPS
    progress("train", 0, steps)
    sample = np.array(vectors[training.sample_rows(n, nlist, spec.seed)])
    mark = hashlib.blake2b(f"{metric}/{plan}/".encode("ascii"), digest_size=16)
    mark.update(sample.data)
    path = scratch / "trained.rag"
    index = _left_over(path, metric, dim, spec.residual, mark.hexdigest())
    if index is None:
        index = training.train_index(
            sample, metric, plan, lambda done: progress("train", done, steps)
        )
        write_index(path, index, {"mark": mark.hexdigest()})
    progress("train", steps, steps)
    return index


def _left_over(path: Path, metric: Metric, dim: int, residual: bool, mark: str) -> IvfIndex | None:
    try:
        file = read_blockfile(path, INDEX_KIND)
        if file.meta.get("mark") != mark:
            return None
        return index_from_file(file, metric, dim, residual)
    except CorruptData:
        return None


def write_index(path: Path, index: IvfIndex, meta: dict[str, str | int]) -> None:
    """An index file, whole or not at all; see ``IndexRef`` for its arrays."""
    arrays: dict[str, F32 | None] = {
        "centroids": index.centroids,
        "codebooks": index.codebooks,
        "shift": index.shift,
        "rotation": index.rotation,
        "offset": index.offset,
    }
    streamed = [_streamed(name, array) for name, array in arrays.items() if array is not None]
    write_whole(path, INDEX_KIND, {"metric": str(index.metric), **meta}, streamed)


def _streamed(name: str, array: NDArray[np.float32]) -> StreamedArray:
    return StreamedArray(name, "float32", array.shape, lambda: (array,))


def describe(vectors: F32, index: IvfIndex, spec: TrainSpec, path: str) -> BuiltIndex:
    """The new index with what to search it with, measured where the spec asks for it.

    Args:
        vectors: what the index was trained for.
        path: of its file, relative to the collection.
    """
    if spec.measure:
        tuned = _measured(vectors, index, spec)
        nprobe, factor = tuned.nprobe, tuned.refine_factor
        recall, curve = tuned.recall, tuned.curve
    else:
        nprobe = min(index.nlist, max(_UNMEASURED_LEAST, index.nlist // _UNMEASURED_SHARE))
        factor = _UNMEASURED_FACTOR if spec.refine else None
        recall, curve = None, ()
    return BuiltIndex(
        path=path,
        nlist=index.nlist,
        m=index.m,
        nprobe=nprobe,
        refine_factor=factor,
        residual=index.residual,
        rotated=index.rotation is not None,
        recall_at_10=recall,
        curve=curve,
    )


def _measured(vectors: F32, index: IvfIndex, spec: TrainSpec) -> Tuned:
    """Settings measured on at most 100 000 vectors. A thinner collection has
    farther neighbours, so the choice errs to the safe side."""
    # Imported here: tuning searches with backends, which other builds do without.
    from retrieval_node.tuning import tune

    n = len(vectors)
    rows = np.arange(n)
    if n > _TUNE_ROWS:
        rows = np.sort(np.random.default_rng(spec.seed).choice(n, _TUNE_ROWS, replace=False))
    some = np.array(vectors[rows])
    lists, codes = Encoder(index)(some)
    return tune(some, lists, codes, index, index.metric, spec.refine, spec.seed, n)


def open_index(
    directory: Path, relative: str, metric: Metric, dim: int, residual: bool
) -> IvfIndex:
    """An index file of the collection.

    Raises:
        InvalidInput: it is of another dimension, or outside the collection.
        CorruptData: naming the file.
    """
    path = (directory / relative).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise InvalidInput(f"{relative} leaves the collection", field="index.existing")
    file = read_blockfile(path, INDEX_KIND)
    turned = file.arrays.get("rotation", file.arrays.get("centroids"))
    if turned is not None and turned.ndim == 2 and turned.shape[1] != dim:
        raise InvalidInput(
            f"vectors have {dim} components, the index has {turned.shape[1]}",
            field="vectors",
            hint="embed with the collection's own embedder",
        )
    return index_from_file(file, metric, dim, residual)
