"""Refinement and exact search: the compiled way and the numpy way find the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragschema.types import Metric
from retrieval_node import exact, refine
from retrieval_node.backends.base import Candidates
from retrieval_node.engine import scan_request
from retrieval_node.exact import ExactRequest, search_exact
from retrieval_node.local import LocalSearcher
from tests.retrieval_node.making import Plan, clustered, make

PLANS = [
    Plan(metric=Metric.L2, segments=(200, 60), shards=2, dead=(3, 205)),
    Plan(metric=Metric.COSINE, segments=(200,), vector_type="float32"),
]


def _same(a: Candidates, b: Candidates) -> None:
    assert a.counts.tolist() == b.counts.tolist()
    np.testing.assert_array_equal(a.rows, b.rows)
    assert a.distances.tobytes() == b.distances.tobytes()


@pytest.mark.parametrize("plan", PLANS, ids=["two shards", "float32"])
def test_rescoring_does_not_depend_on_the_extension(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "c", plan)
    searcher = LocalSearcher(made.directory, "fpga")
    queries = clustered(4, 16, 3, plan.metric)
    shards = tuple(searcher.shard_set.shards)
    request = scan_request(
        searcher.shard_set, shards, queries, searcher.probe(queries, 3), k=5, refine_k=30
    )
    rng = np.random.default_rng(3)
    live = np.setdiff1d(np.arange(200), plan.dead)
    rows = np.stack([rng.choice(live, 30, replace=False) for _ in range(4)])
    counts = np.array([30, 0, 3, 17], dtype=np.int32)
    given = Candidates(np.zeros((4, 30), np.float32), rows, counts, codes_scanned=9, survivors=2)
    found = refine.refine(searcher.shard_set, request, given)
    assert (found.codes_scanned, found.survivors) == (9, 2)
    assert found.counts.tolist() == [5, 0, 3, 5]
    monkeypatch.setattr(refine, "native", lambda: None)
    _same(refine.refine(searcher.shard_set, request, given), found)
    searcher.close()


@pytest.mark.parametrize("plan", PLANS, ids=["two shards", "float32"])
def test_exact_search_does_not_depend_on_the_extension(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "c", plan)
    searcher = LocalSearcher(made.directory, "simd")
    segments = [s for shard in searcher.shard_set.shards.values() for s in shard.segments]
    passing = np.random.default_rng(5).integers(0, 256, (2, 33), dtype=np.uint8)
    request = ExactRequest(
        queries=clustered(3, 16, 3, plan.metric),
        k=7,
        metric=plan.metric,
        live=searcher.shard_set.live,
        filters=passing,
        filter_of=np.array([1, -1, 0], dtype=np.int32),
    )
    found = search_exact(segments, request, None)
    assert found.counts.min() == 7
    monkeypatch.setattr(exact, "native", lambda: None)
    _same(search_exact(segments, request, None), found)
    searcher.close()
