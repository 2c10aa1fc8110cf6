"""Real faiss indexes in files, and collections imported from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ragschema.storage.manifest import (
    ChunkingConfig,
    IndexRef,
    Manifest,
    SegmentRef,
    commit_manifest,
    file_ref,
)
from ragschema.types import F32, I64, Metric
from retrieval_node.index_spec import ImportSpec
from retrieval_node.interop.faiss_import import import_index
from tests.retrieval_node.making import clustered

_FAST_ROUNDS = 4


@dataclass(frozen=True)
class Case:
    """An index to make by faiss's factory.

    Attributes:
        key: for ``faiss.index_factory``.
        ids: of the vectors; None: 0 .. n - 1.
    """

    key: str
    n: int = 2000
    dim: int = 32
    metric: Metric = Metric.L2
    residual: bool = True
    k: int = 10
    nprobe: int = 4
    seed: int = 1
    ids: tuple[int, ...] | None = None

    def __str__(self) -> str:
        kind = "" if self.residual else ",whole"
        return f"{self.key},n{self.n},d{self.dim},{self.metric},k{self.k},p{self.nprobe}{kind}"


def ivf_of(index: Any) -> Any:
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def _hurry(index: Any) -> None:
    """Training need not be good."""
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexRefine):
        inner = faiss.downcast_index(inner.base_index)
    if isinstance(inner, faiss.IndexPreTransform):
        for i in range(inner.chain.size()):
            transform = faiss.downcast_VectorTransform(inner.chain.at(i))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter = transform.niter_pq = transform.niter_pq_0 = _FAST_ROUNDS
    ivf = ivf_of(index)
    ivf.cp.min_points_per_centroid = ivf.pq.cp.min_points_per_centroid = 1
    ivf.cp.niter = ivf.pq.cp.niter = _FAST_ROUNDS
    # Orders codes for a filter of faiss's own; takes most of the time.
    ivf.do_polysemous_training = False


def build(case: Case) -> tuple[Any, F32]:
    """The trained and filled index, and its vectors."""
    faiss.omp_set_num_threads(1)
    vectors = clustered(case.n, case.dim, case.seed)
    kind = faiss.METRIC_L2 if case.metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(case.dim, case.key, kind)
    ivf = ivf_of(index)
    if isinstance(ivf, faiss.IndexIVFPQ):
        _hurry(index)
        ivf.by_residual = case.residual
    index.train(vectors)
    if case.ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors, np.array(case.ids, dtype=np.int64))
    ivf.nprobe = case.nprobe
    return index, vectors


def queries_for(case: Case, count: int = 40) -> F32:
    """Near the data, but not of it."""
    return clustered(case.n + count, case.dim, case.seed)[case.n :] + np.float32(0.05)


@dataclass(frozen=True)
class Imported:
    """A committed collection; ids: int64 [rows], the faiss id of each."""

    directory: Path
    manifest: Manifest
    ids: I64


def import_file(path: Path, directory: Path, shards: int = 2) -> Imported:
    """Imports in this process, and commits without texts."""
    directory.mkdir(parents=True)
    spec = ImportSpec(str(path), str(directory), "seg-000001", "idx-000001", shards)
    found = import_index(spec, lambda *_: None)
    texts = directory / "segments" / "seg-000001" / "texts.sqlite"
    texts.write_bytes(b"texts")
    manifest = Manifest(
        format=2,
        collection=directory.name,
        generation=1,
        created_at="2026-11-20T00:00:00Z",
        metric=found.metric,
        dim=found.dim,
        num_shards=shards,
        embedder=None,
        chunking=ChunkingConfig(),
        index=IndexRef(
            file=file_ref(directory, directory / found.path),
            nlist=found.nlist,
            m=found.m,
            nprobe=found.nprobe,
            refine_factor=found.refine_factor,
            residual=found.residual,
            rotated=found.rotated,
        ),
        segments=(
            SegmentRef(
                id="seg-000001",
                row_start=0,
                row_count=found.rows,
                shards=tuple(file_ref(directory, directory / p) for p in found.shards),
                texts=file_ref(directory, texts),
            ),
        ),
        tombstones=None,
        next_row_id=found.rows,
        live_rows=found.rows,
        live_documents=found.rows,
    )
    commit_manifest(directory, manifest)
    ids = np.load(directory / found.ids, allow_pickle=False)
    return Imported(directory, manifest, ids)


def imported(case: Case, tmp_path: Path) -> tuple[Any, Imported]:
    """faiss's index, and the collection made of its file."""
    index, _ = build(case)
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    return index, import_file(path, tmp_path / "collection")
