"""An imported index answers as faiss did: 20 shapes, every backend that scans floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragschema.types import F32, I64, Metric
from retrieval_node.backends.base import Candidates, ScanRequest
from retrieval_node.backends.registry import open_backend
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import ShardReader
from tests.retrieval_node.interop.cases import Case, Imported, imported, queries_for

L2, IP = Metric.L2, Metric.IP
SHAPES = (
    Case("IVF16,PQ8"),
    Case("IVF16,PQ8", metric=IP),
    Case("IVF16,PQ8", residual=False),
    Case("IVF16,PQ8", metric=IP, residual=False),
    Case("IVF1,PQ4", n=600, nprobe=1),
    Case("IVF32,PQ4", n=500, dim=4, nprobe=32, k=100),
    Case("IVF8,PQ16", n=1500, dim=128, nprobe=3, k=1),
    Case("IVF8,PQ64", n=1200, dim=64, nprobe=8),
    Case("IVF4,PQ128", n=1000, dim=128, nprobe=2, metric=IP),
    Case("IVF64,PQ8", n=3000, nprobe=64, k=1000),
    Case("IVF16,PQ5", dim=15, nprobe=7),
    Case("IVF16,PQ24", dim=48, nprobe=5, metric=IP, k=33),
    Case("OPQ8,IVF16,PQ8"),
    Case("OPQ8,IVF16,PQ8", metric=IP, residual=False),
    Case("OPQ8_16,IVF16,PQ8", nprobe=16),
    Case("PCA16,IVF16,PQ8", nprobe=16),
    Case("RR32,IVF16,PQ8", metric=IP),
    Case("PCAR24,OPQ8,IVF16,PQ8", residual=False),
    Case("IVF16,PQ8,RFlat", nprobe=8),
    Case("OPQ8,IVF16,PQ8,Refine(SQfp16)", metric=IP, nprobe=8, k=20),
)


def test_there_are_twenty_shapes() -> None:
    assert len({str(case) for case in SHAPES}) == 20


def scanned(made: Imported, backend: str, queries: F32, k: int) -> Candidates:
    """The k nearest as the collection's own settings give them."""
    manifest = made.manifest
    assert manifest.index is not None
    shard_set = ShardReader().open(made.directory, manifest, range(manifest.num_shards))
    assert shard_set.index is not None
    turned = np.ascontiguousarray(shard_set.index.rotate(queries))
    lists = nearest_lists(turned, shard_set.index.centroids, manifest.metric, manifest.index.nprobe)
    factor = manifest.index.refine_factor
    opened = open_backend(backend, threads=1)
    try:
        opened.load(shard_set)
        return opened.search(
            shard_set,
            ScanRequest(
                shards=tuple(shard_set.shards),
                queries=turned,
                refine_queries=queries,
                lists=lists,
                k=k,
                refine_k=None if factor is None else factor * k,
            ),
        )
    finally:
        opened.close()


def assert_equal_but_for_ties(found: Candidates, ids: I64, distances: F32, rows: I64) -> None:
    """faiss's answer, where -1 stands for nothing.

    Args:
        ids: int64 [rows], the faiss id of a row.
    """
    wanted = (rows != -1).sum(axis=1)
    np.testing.assert_array_equal(found.counts, wanted)
    for q, count in enumerate(wanted.tolist()):
        ours, theirs = found.distances[q, :count], distances[q, :count]
        scale = max(1e-6, float(np.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * scale)
        mine = ids[found.rows[q, :count]]
        assert len(set(mine.tolist())) == count, "a row came twice"
        for place in np.flatnonzero(mine != rows[q, :count]).tolist():
            tied = np.abs(theirs - theirs[place]) <= 2e-6 * scale
            # At the border a tied row may stand outside of faiss's answer.
            assert mine[place] in rows[q, :count][tied] or tied[-1], (q, place)


@pytest.mark.parametrize("backend", ["simd", "faiss"])
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_answers_are_those_of_faiss(case: Case, backend: str, tmp_path: Path) -> None:
    index, made = imported(case, tmp_path)
    queries = queries_for(case)
    distances, ids = index.search(queries, case.k)
    if case.metric is not L2:
        distances = np.where(ids >= 0, -distances, 0)
    found = scanned(made, backend, queries, case.k)
    assert_equal_but_for_ties(found, made.ids, distances, ids)


def test_the_comparison_sees_a_wrong_row(tmp_path: Path) -> None:
    case = Case("IVF4,PQ4", n=400, dim=8)
    index, made = imported(case, tmp_path)
    queries = queries_for(case, 3)
    distances, ids = index.search(queries, 10)
    found = scanned(made, "faiss", queries, 10)
    assert_equal_but_for_ties(found, made.ids, distances, ids)
    found.rows[1, [0, 5]] = found.rows[1, [5, 0]]
    with pytest.raises(AssertionError):
        assert_equal_but_for_ties(found, made.ids, distances, ids)


def test_ids_need_not_be_dense(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    ids = rng.permutation(np.unique(rng.integers(-(2**60), 2**60, 900)))[:800]
    case = Case("IVF8,PQ4", n=800, dim=16, ids=tuple(ids.tolist()))
    index, made = imported(case, tmp_path)
    np.testing.assert_array_equal(made.ids, np.sort(ids))
    queries = queries_for(case)
    found = scanned(made, "faiss", queries, case.k)
    assert_equal_but_for_ties(found, made.ids, *index.search(queries, case.k))
