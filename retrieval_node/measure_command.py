"""Measuring the recall of a committed collection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import IncompatibleRequest, InvalidInput, NotFound
from ragschema.recall import choose
from ragschema.storage.manifest import CurvePoint, Manifest, read_manifest
from ragschema.types import F32, I64, Metric, SearchBatch, SearchResult
from retrieval_node import measure
from retrieval_node.engine import SearchEngine
from retrieval_node.fixedpoint import check_magnitude
from retrieval_node.index_spec import TuneSpec
from retrieval_node.measure import CURVE_K, Questions
from retrieval_node.refine import vectors_of
from retrieval_node.scanner import open_scanner
from retrieval_node.shard import ShardReader, ShardSet

#: Called with (phase, done, total).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """What was measured, and what it makes of the wish.

    Attributes:
        generation: the collection's state that was measured.
        nprobe, refine_factor: the cheapest settings that reach it, else the best.
        recall: measured with them, of the spec's k.
        reached: whether that is what was wanted.
        curve: recall of the ten nearest, by nprobe and refine factor.
        at_k: the same of the spec's k, where that is not ten.
        queries: how many were asked.
        refines: stored vectors were there to refine with.
    """

    generation: int
    nprobe: int
    refine_factor: int | None
    recall: float
    reached: bool
    curve: tuple[CurvePoint, ...]
    at_k: tuple[CurvePoint, ...]
    queries: int
    refines: bool


def measure_collection(spec: TuneSpec, progress: Progress) -> Measured:
    """Asks the collection and compares with the truth.

    Raises:
        NotFound: there is no such collection or file.
        IncompatibleRequest: the collection is exact, or holds no vectors to find
            the truth with and none was given.
        InvalidInput: queries or truth do not fit the collection.
        CorruptData: naming a file of the collection that is damaged.
    """
    directory = Path(spec.collection_dir)
    manifest = read_manifest(directory)
    _check(manifest, spec)
    shard_set = ShardReader().open(directory, manifest, range(manifest.num_shards))
    engine = SearchEngine(open_scanner(spec.threads or 1))
    engine.load(shard_set)
    try:
        return _measured(shard_set, engine, spec, manifest, progress)
    finally:
        engine.backend.close()


def _check(manifest: Manifest, spec: TuneSpec) -> None:
    if manifest.index is None:
        raise IncompatibleRequest(
            f"collection {manifest.collection!r} compares every vector: its recall is 1",
            field="collection",
            hint="there is nothing to tune until it has an index",
        )
    if manifest.live_rows < 2:
        raise IncompatibleRequest(
            f"collection {manifest.collection!r} holds {manifest.live_rows} rows",
            field="collection",
            hint="there is nothing to measure",
        )
    if spec.truth is not None and spec.queries is None:
        raise InvalidInput("truth without queries", field="truth", hint="give --queries too")


def _measured(
    shard_set: ShardSet, engine: SearchEngine, spec: TuneSpec, manifest: Manifest,
    progress: Progress,
) -> Measured:  # fmt: skip
    def search(batch: SearchBatch) -> SearchResult:
        return engine.search(shard_set, batch)

    steps = measure.ladder(manifest.index.nlist if manifest.index else 1)
    ks = [CURVE_K] if spec.k == CURVE_K else [CURVE_K, spec.k]
    total = 1 + len(ks) * len(steps)
    progress("truth", 0, 1)
    asked = [_questions(shard_set, search, spec, k) for k in ks]
    progress("truth", 1, 1)
    curves = []
    for number, questions in enumerate(asked):
        before = number * len(steps)

        def on_step(done: int, before: int = before) -> None:
            progress("measure", before + done, total - 1)

        curves.append(
            measure.curve(
                shard_set, search, [questions], refine=shard_set.refine, steps=steps,
                enough=0.9995, on_step=on_step,
            )
        )  # fmt: skip
    progress("measure", total - 1, total - 1)
    choice = choose(curves[-1], spec.recall)
    return Measured(
        generation=manifest.generation,
        nprobe=choice.nprobe,
        refine_factor=choice.refine_factor,
        recall=choice.expected,
        reached=choice.reached,
        curve=curves[0],
        at_k=() if len(curves) == 1 else curves[1],
        queries=len(asked[0].queries),
        refines=shard_set.refine,
    )


def _questions(shard_set: ShardSet, search: measure.Search, spec: TuneSpec, k: int) -> Questions:
    if spec.queries is not None:
        queries = _load_queries(Path(spec.queries), shard_set)
        if spec.truth is not None:
            truth = _load(Path(spec.truth), "truth", ("int64", "int32"))
            return measure.given(queries, truth.astype(np.int64), k)
        own = np.full(len(queries), -1, dtype=np.int64)
    else:
        _need_vectors(shard_set)
        own = _sample(shard_set, spec)
        segments = [s for shard in shard_set.shards.values() for s in shard.segments]
        queries = _unit(vectors_of(segments, own), shard_set.metric)
    _need_vectors(shard_set)
    return _truth(shard_set, search, queries, own, k)


def _need_vectors(shard_set: ShardSet) -> None:
    if not shard_set.refine:
        raise IncompatibleRequest(
            f"collection {shard_set.snapshot.collection!r} stores no vectors to find true"
            " neighbours with",
            field="truth",
            hint="give --queries FILE.npy and --truth FILE.npy, the row ids of their neighbours",
        )


def _sample(shard_set: ShardSet, spec: TuneSpec) -> I64:
    """Row ids of live rows, ascending."""
    rng = np.random.default_rng(spec.seed)
    live = shard_set.live
    if live is None:
        rows = np.arange(shard_set.next_row_id)
    else:
        bits = np.unpackbits(live, count=shard_set.next_row_id, bitorder="little")
        rows = np.flatnonzero(bits)
    chosen = rng.choice(rows, min(spec.sample, len(rows)), replace=False)
    return np.sort(chosen).astype(np.int64)


def _truth(
    shard_set: ShardSet, search: measure.Search, queries: F32, own: I64, k: int
) -> Questions:
    """By exact search over stored vectors, a few queries at a time."""
    batch = SearchBatch(
        shard_set.snapshot, tuple(shard_set.shards), queries, None, measure.width_for(k), exact=True
    )
    found = measure.in_pieces(search, batch)
    return measure.questions_of(queries, own, found.distances, found.row_ids, found.counts, k)


def _unit(vectors: F32, metric: Metric) -> F32:
    """float16 moved cosine vectors off unit length a little."""
    if metric is not Metric.COSINE:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)


def _load_queries(path: Path, shard_set: ShardSet) -> F32:
    queries = _load(path, "queries", ("float32",))
    if not len(queries) or queries.shape[1] != shard_set.dim:
        raise InvalidInput(
            f"{path} holds {list(queries.shape)}, the collection's vectors have {shard_set.dim}"
            " components",
            field="queries",
            hint=f"give float32 [n, {shard_set.dim}]",
        )
    found = np.ascontiguousarray(queries, dtype=np.float32)
    check_magnitude(found, "queries")
    return found


def _load(path: Path, field: str, dtypes: tuple[str, ...]) -> NDArray[np.generic]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", field=field) from error
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a .npy file: {error}", field=field) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.name not in dtypes:
        raise InvalidInput(f"{path} does not hold {' or '.join(dtypes)} [n, columns]", field=field)
    return array
