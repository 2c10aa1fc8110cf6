"""Scans by faiss, on the CPU and behind a stand-in for its GPU half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragschema.errors import Cancelled, IncompatibleRequest, Unavailable
from ragschema.types import F32, U8, Metric
from retrieval_node.backends.base import Backend, ScanRequest
from retrieval_node.backends.faiss_backend import FaissBackend
from retrieval_node.backends.faiss_gpu import FaissGpuBackend, gpu_faiss
from retrieval_node.cancel import Cancellation
from retrieval_node.probe import nearest_lists
from retrieval_node.shard import ShardReader, ShardSet
from tests.retrieval_node.backends.fake_gpu import StandInGpuFaiss
from tests.retrieval_node.interop.cases import Case, imported, queries_for
from tests.retrieval_node.making import Plan, make

BACKENDS: dict[str, Callable[[], Backend]] = {
    "faiss": FaissBackend,
    "gpu": lambda: FaissGpuBackend(StandInGpuFaiss()),
    "gpu that probes": lambda: FaissGpuBackend(StandInGpuFaiss(choosing=False)),
}


def _loaded(directory: Path, plan: Plan) -> ShardSet:
    made = make(directory, plan)
    return ShardReader().open(directory, made.manifest, range(made.manifest.num_shards))


def _request(shard_set: ShardSet, queries: F32, k: int, nprobe: int) -> ScanRequest:
    assert shard_set.index is not None
    turned = np.ascontiguousarray(shard_set.index.rotate(queries))
    lists = nearest_lists(turned, shard_set.index.centroids, shard_set.metric, nprobe)
    return ScanRequest(tuple(shard_set.shards), turned, queries, lists, k, live=shard_set.live)


def _expected(shard_set: ShardSet, request: ScanRequest, q: int, allowed: U8) -> list[int]:
    """Rows of query q by decoding every code of its lists."""
    index = shard_set.index
    assert index is not None
    found: list[tuple[float, int]] = []
    for shard in shard_set.shards.values():
        for segment in shard.segments:
            ids, codes = segment.row_ids(), segment.row_codes()
            list_of = np.repeat(np.arange(index.nlist), np.diff(segment.list_offsets))
            decoded = index.codebooks[np.arange(index.m)[None, :], codes].reshape(len(ids), -1)
            vectors = decoded.astype(np.float64)
            if index.residual:
                vectors = vectors + index.centroids[list_of]
            query = request.queries[q].astype(np.float64)
            if shard_set.metric is Metric.L2:
                apart = ((vectors - query) ** 2).sum(axis=1)
            else:
                apart = -(vectors @ query)
            here = np.isin(list_of, request.lists[q]) & (allowed[ids] > 0)
            found += zip(apart[here].tolist(), ids[here].tolist(), strict=True)
    return [row for _, row in sorted(found)[: request.k]]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE])
def test_filters_and_deleted_rows_are_obeyed(tmp_path: Path, name: str, metric: Metric) -> None:
    plan = Plan(metric=metric, segments=(700, 1300), shards=2, dead=(3, 40, 1999), refine=False)
    shard_set = _loaded(tmp_path / "c", plan)
    queries = make(tmp_path / "other", replace(plan, segments=(300,), dead=(), seed=2)).vectors[:9]
    rng = np.random.default_rng(4)
    # One filter lets half of the rows through, one only a few.
    bits = np.stack([rng.random(2000) < 0.5, rng.random(2000) < 0.01])
    request = replace(
        _request(shard_set, queries, 10, 3),
        filters=np.packbits(bits, axis=1, bitorder="little"),
        filter_of=np.array([-1, 0, 1] * 3, dtype=np.int32),
    )
    backend = BACKENDS[name]()
    backend.load(shard_set)
    found = backend.search(shard_set, request)
    backend.close()
    live = np.ones(2000, dtype=np.uint8)
    live[list(plan.dead)] = 0
    for q in range(9):
        allowed = live if q % 3 == 0 else live * bits[q % 3 - 1]
        expected = _expected(shard_set, request, q, allowed)
        assert found.counts[q] == len(expected)
        got = found.rows[q, : found.counts[q]].tolist()
        assert len(set(got) - set(expected)) <= 1, "but for a tie within rounding"
        assert not found.rows[q, found.counts[q] :].any()
        assert (np.diff(found.distances[q, : found.counts[q]]) >= 0).all()


@pytest.mark.parametrize("name", BACKENDS)
def test_refinement_gives_exact_distances(tmp_path: Path, name: str) -> None:
    shard_set = _loaded(tmp_path / "c", Plan(segments=(600,), refine=True))
    queries = queries_for(Case("", n=600, dim=16), 5)
    request = replace(_request(shard_set, queries, 4, 8), refine_k=40)
    backend = BACKENDS[name]()
    backend.load(shard_set)
    found = backend.search(shard_set, request)
    vectors = shard_set.shards[0].segments[0].vectors
    assert vectors is not None
    rows = shard_set.shards[0].segments[0].row_ids()
    for q in range(5):
        at = [int(np.flatnonzero(rows == row)[0]) for row in found.rows[q]]
        exact = ((vectors[at].astype(np.float32) - queries[q]) ** 2).sum(axis=1)
        np.testing.assert_allclose(found.distances[q], exact, rtol=1e-5)
    backend.close()


@pytest.mark.parametrize("name", BACKENDS)
def test_equal_codes_come_in_order_of_their_rows(tmp_path: Path, name: str) -> None:
    """Many rows share few codes, so every border is a tie."""
    shard_set = _loaded(tmp_path / "c", Plan(segments=(900,), nlist=2, m=1, dim=2, refine=False))
    queries = np.zeros((2, 2), dtype=np.float32)
    request = _request(shard_set, queries, 5, 2)
    backend = BACKENDS[name]()
    backend.load(shard_set)
    found = backend.search(shard_set, request)
    for q in range(2):
        for tie in np.unique(found.distances[q]):
            assert (np.diff(found.rows[q][found.distances[q] == tie]) > 0).all()
    assert found.rows[0].tolist() == found.rows[1].tolist()
    backend.close()


def test_more_rows_than_the_gpu_gives_come_from_the_cpu(tmp_path: Path) -> None:
    shard_set = _loaded(tmp_path / "c", Plan(segments=(2500,), nlist=4, refine=False))
    queries = queries_for(Case("", n=600, dim=16), 2)
    request = _request(shard_set, queries, 2200, 4)
    library = StandInGpuFaiss()
    gpu, cpu = FaissGpuBackend(library), FaissBackend()
    for backend in (gpu, cpu):
        backend.load(shard_set)
    one, other = gpu.search(shard_set, request), cpu.search(shard_set, request)
    np.testing.assert_array_equal(one.rows, other.rows)
    assert library.calls == []
    gpu.search(shard_set, replace(request, k=10))
    assert library.calls, "small requests do go to the device"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_search_that_nobody_waits_for_stops(tmp_path: Path, name: str) -> None:
    shard_set = _loaded(tmp_path / "c", Plan(segments=(300,), refine=False))
    cancel = Cancellation()
    cancel.set()
    request = replace(_request(shard_set, np.zeros((3, 16), np.float32), 5, 2), cancel=cancel)
    backend = BACKENDS[name]()
    backend.load(shard_set)
    with pytest.raises(Cancelled):
        backend.search(shard_set, request)


def test_what_a_gpu_cannot_do_is_said(tmp_path: Path) -> None:
    _, made = imported(Case("IVF4,PQ4", n=300, dim=8, residual=False), tmp_path)
    shard_set = ShardReader().open(made.directory, made.manifest, (0, 1))
    with pytest.raises(IncompatibleRequest, match="whole vectors"):
        FaissGpuBackend(StandInGpuFaiss()).load(shard_set)
    plain = _loaded(tmp_path / "c", Plan(segments=(300,), refine=False))
    with pytest.raises(Unavailable, match="out of memory"):
        FaissGpuBackend(StandInGpuFaiss(full=True)).load(plain)


def test_without_gpu_support_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(Unavailable, match="without GPU support") as caught:
        FaissGpuBackend()
    assert "faiss-gpu" in (caught.value.hint or "")
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(Unavailable, match="no GPU"):
        gpu_faiss()


@pytest.mark.gpu
def test_a_real_gpu_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    try:
        gpu = FaissGpuBackend()
    except Unavailable as error:
        pytest.skip(error.message)
    shard_set = _loaded(tmp_path / "c", Plan(segments=(2000,), shards=2, refine=False))
    queries = queries_for(Case("", n=600, dim=16), 20)
    request = _request(shard_set, queries, 10, 4)
    cpu = FaissBackend()
    for backend in (gpu, cpu):
        backend.load(shard_set)
    one, other = gpu.search(shard_set, request), cpu.search(shard_set, request)
    np.testing.assert_allclose(one.distances, other.distances, rtol=1e-3)
    assert (one.rows == other.rows).mean() > 0.98
