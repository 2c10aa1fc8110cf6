"""Small real collections for the tests of the retrieval node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ragschema.storage.blockfile import write_blockfile
from ragschema.storage.manifest import (
    ChunkingConfig,
    FileRef,
    IndexRef,
    Manifest,
    SegmentRef,
    commit_manifest,
    file_ref,
)
from ragschema.types import F32, I64, Metric
from retrieval_node.build import BuildResult, build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec


@dataclass(frozen=True)
class Plan:
    """A collection to make.

    Attributes:
        segments: rows per segment.
        dead: row ids to tombstone.
        fresh: the last segment is a small one, of exact vectors.
        measure: tune the index, which takes most of the time.
    """

    metric: Metric = Metric.L2
    dim: int = 16
    segments: tuple[int, ...] = (400,)
    shards: int = 1
    exact: bool = False
    nlist: int | None = 8
    m: int | None = 4
    refine: bool = True
    dead: tuple[int, ...] = ()
    seed: int = 1
    fresh: bool = False
    rotate: bool = False
    residual: bool = True
    measure: bool = False
    vector_type: Literal["float16", "float32"] | None = None


@dataclass(frozen=True)
class Made:
    """A committed collection and the vectors in it, float32 [rows, dim]."""

    directory: Path
    manifest: Manifest
    vectors: F32


def clustered(n: int, dim: int, seed: int, metric: Metric = Metric.L2) -> F32:
    """Vectors around a few centres; unit length for cosine."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dim))
    vectors = centres[rng.integers(0, 12, n)] + 0.4 * rng.normal(size=(n, dim))
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _choice(plan: Plan, number: int, trained: BuildResult | None) -> IndexChoice | None:
    if plan.exact or (plan.fresh and number == len(plan.segments)):
        return None
    if trained is None:
        return IndexChoice(
            train=TrainSpec(
                "idx-000001",
                nlist=plan.nlist,
                m=plan.m,
                refine=plan.refine,
                rotate=plan.rotate,
                residual=plan.residual,
                measure=plan.measure,
            )
        )
    assert trained.index is not None
    return IndexChoice(existing=trained.index.path, residual=plan.residual)


def make(directory: Path, plan: Plan) -> Made:
    """Builds, writes and commits generation 1."""
    directory.mkdir(parents=True)
    total = sum(plan.segments)
    vectors = clustered(total, plan.dim, plan.seed, plan.metric)
    start, segments, trained = 0, [], None
    for number, rows in enumerate(plan.segments, start=1):
        source = directory.parent / "vectors.npy"
        np.save(source, vectors[start : start + rows])
        spec = BuildSpec(
            collection_dir=str(directory),
            segment_id=f"seg-{number:06d}",
            row_start=start,
            vectors=str(source),
            metric=plan.metric,
            num_shards=plan.shards,
            index=_choice(plan, number, trained),
            refine=plan.refine,
            vector_type=plan.vector_type,
            threads=1,
        )
        result = build(spec, lambda *_: None)
        trained = trained or result
        segments.append(segment_ref(directory, spec, result, rows))
        start += rows
    manifest = Manifest(
        format=2,
        collection=directory.name,
        generation=1,
        created_at="2026-11-20T00:00:00Z",
        metric=plan.metric,
        dim=plan.dim,
        num_shards=plan.shards,
        embedder=None,
        chunking=ChunkingConfig(),
        index=index_ref(directory, trained) if trained else None,
        segments=tuple(segments),
        tombstones=write_tombstones(directory, np.array(plan.dead, dtype=np.int64)),
        next_row_id=total,
        live_rows=total - len(plan.dead),
        live_documents=1,
    )
    commit_manifest(directory, manifest)
    return Made(directory, manifest, vectors)


def segment_ref(directory: Path, spec: BuildSpec, result: BuildResult, rows: int) -> SegmentRef:
    texts = directory / "segments" / spec.segment_id / "texts.sqlite"
    texts.write_bytes(b"texts")
    return SegmentRef(
        id=spec.segment_id,
        row_start=spec.row_start,
        row_count=rows,
        shards=tuple(file_ref(directory, directory / path) for path in result.shards),
        texts=file_ref(directory, texts),
    )


def index_ref(directory: Path, result: BuildResult) -> IndexRef | None:
    index = result.index
    if index is None:
        return None
    return IndexRef(
        file=file_ref(directory, directory / index.path),
        nlist=index.nlist,
        m=index.m,
        nprobe=index.nprobe,
        refine_factor=index.refine_factor,
        residual=index.residual,
        rotated=index.rotated,
        curve=index.curve,
    )


def write_tombstones(directory: Path, rows: I64, name: str = "t1") -> FileRef | None:
    if not len(rows):
        return None
    path = directory / "tombstones" / f"{name}.rag"
    path.parent.mkdir(exist_ok=True)
    write_blockfile(path, "tombstones", {}, {"rows": rows})
    return file_ref(directory, path)
