"""Collections that `bench.node_overhead` serves, kept under build/bench."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from bench.common import note
from bench.datasets import CACHE, clustered
from ragschema.storage.manifest import (
    ChunkingConfig,
    IndexRef,
    Manifest,
    SegmentRef,
    commit_manifest,
    file_ref,
)
from ragschema.types import U8, Metric
from retrieval_node.build import build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec
from retrieval_node.build_train import open_index, write_index
from retrieval_node.build_write import coded_arrays, write_shard
from retrieval_node.layout import deal
from retrieval_node.shard_files import IvfIndex, make_index

QUERIES: Final = 2048
QUERIES_FILE: Final = "queries.npy"
_SEGMENT = "seg-000001"
_INDEX = "index/idx-000001.rag"


def encoded(rows: int, dim: int, nlist: int, m: int, seed: int) -> tuple[Path, str]:
    """Clustered vectors, trained and encoded: the data directory and the name.

    ``QUERIES_FILE`` in the collection's folder holds queries of the same distribution.
    """
    name = f"vectors-{rows}x{dim}-nlist{nlist}-m{m}-s{seed}"

    def fill(directory: Path) -> IvfIndex:
        vectors = directory / "vectors.npy"
        drawn = clustered(rows, dim, seed=seed, queries=QUERIES)
        np.save(vectors, drawn.base)
        np.save(directory / QUERIES_FILE, drawn.queries)
        train = TrainSpec("idx-000001", nlist=nlist, m=m, seed=seed, refine=False, measure=False)
        spec = BuildSpec(
            collection_dir=str(directory),
            segment_id=_SEGMENT,
            row_start=0,
            vectors=str(vectors),
            metric=Metric.L2,
            num_shards=1,
            index=IndexChoice(train=train),
        )
        build(spec, lambda *_: None)
        vectors.unlink()
        return open_index(directory, _INDEX, Metric.L2, dim, True)

    return _kept(name, rows, 1, fill)


def synthesised(
    rows: int, dim: int, nlist: int, m: int, shards: int, seed: int
) -> tuple[Path, str]:
    """Random codes in lists of equal length; every shard has its part of each list."""
    name = f"codes-{rows}-nlist{nlist}-m{m}-shards{shards}-s{seed}"

    def fill(directory: Path) -> IvfIndex:
        rng = np.random.default_rng(seed)
        # So close together that no list can be left out unread.
        centroids = 0.01 * rng.standard_normal((nlist, dim), dtype=np.float32)
        codebooks = 0.3 * rng.standard_normal((m, 256, dim // m), dtype=np.float32)
        index = make_index(Metric.L2, centroids, codebooks)
        write_index(directory / _INDEX, index, {"seed": seed})
        codes: U8 = rng.integers(0, 256, (rows, m), dtype=np.uint8)
        layouts = deal(np.arange(rows, dtype=np.int64) % nlist, nlist, shards, 0)
        for number, layout in enumerate(layouts):
            path = directory / "segments" / _SEGMENT / f"shard-{number}.rag"
            write_shard(path, number, coded_arrays(layout, index, codes, None))
        return index

    return _kept(name, rows, shards, fill)


def _kept(name: str, rows: int, shards: int, fill: Callable[[Path], IvfIndex]) -> tuple[Path, str]:
    """Builds beside and renames, so that a killed run leaves no half collection."""
    data = CACHE / "nodes"
    directory = data / "collections" / name
    if directory.exists():
        return data, name
    note(f"building {name}")
    started_s = time.perf_counter()
    draft = data / f"{name}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    index = fill(draft)
    _commit(draft, name, rows, shards, index)
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(directory)
    note(f"built {name} in {time.perf_counter() - started_s:.1f} s")
    return data, name


def _commit(directory: Path, name: str, rows: int, shards: int, index: IvfIndex) -> None:
    folder = directory / "segments" / _SEGMENT
    texts = folder / "texts.sqlite"
    texts.write_bytes(b"none")
    segment = SegmentRef(
        id=_SEGMENT,
        row_start=0,
        row_count=rows,
        shards=tuple(file_ref(directory, folder / f"shard-{s}.rag") for s in range(shards)),
        texts=file_ref(directory, texts),
    )
    manifest = Manifest(
        format=2,
        collection=name,
        generation=1,
        created_at="2026-11-21T00:00:00Z",
        metric=Metric.L2,
        dim=index.input_dim,
        num_shards=shards,
        embedder=None,
        chunking=ChunkingConfig(),
        index=IndexRef(
            file=file_ref(directory, directory / _INDEX),
            nlist=index.nlist,
            m=index.m,
            nprobe=min(32, index.nlist),
            refine_factor=None,
        ),
        segments=(segment,),
        tombstones=None,
        next_row_id=rows,
        live_rows=rows,
        live_documents=1,
    )
    commit_manifest(directory, manifest)
