"""The bench's own collections and comparisons, at a small size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import node_collections
from bench.node_latency import read_bound, same_rows
from bench.node_overhead import Kernel, arguments
from bench.node_plan import Plan, batches, paired, queries_of
from retrieval_node.local import LocalSearcher


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_collections, "CACHE", tmp_path)
    return tmp_path


def test_halves_of_a_synthesised_collection_answer_like_the_whole(tmp_path: Path) -> None:
    data, name = node_collections.synthesised(3000, 16, 8, 4, 2, 5)
    searcher = LocalSearcher(data / "collections" / name, "simd")
    sizes = [np.diff(searcher.shard_set.shards[n].segments[0].list_offsets) for n in (0, 1)]
    assert np.abs(sizes[0] - sizes[1]).max() <= 1  # half of every list each
    queries = np.random.default_rng(5).standard_normal((1, 16), dtype=np.float32)
    (batch,) = batches(searcher, queries, 1, 8)
    one = searcher.search(batch)
    two = [searcher.search(replace(batch, shards=(s,))) for s in (0, 1)]
    assert one.stats.codes_scanned == 3000
    assert [t.stats.codes_scanned for t in two] == [1500, 1500]
    same_rows([one], two)
    with pytest.raises(AssertionError, match="other rows"):
        same_rows([one], two[:1])
    searcher.close()


def test_a_kernel_call_is_the_search_of_the_library() -> None:
    data, name = node_collections.encoded(2000, 16, 8, 4, 5)
    searcher = LocalSearcher(data / "collections" / name, "simd")
    batch = batches(searcher, queries_of(data, name), 64, 3)[0]
    found, want = Kernel(searcher)(batch), searcher.search(batch)
    assert np.array_equal(found.rows, want.row_ids)
    assert np.array_equal(found.distances, want.distances)
    searcher.close()


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    data, name = node_collections.synthesised(500, 16, 4, 4, 2, 5)
    path = data / "collections" / name / "manifest.json"
    before = path.stat().st_mtime_ns
    assert node_collections.synthesised(500, 16, 4, 4, 2, 5) == (data, name)
    assert path.stat().st_mtime_ns == before


def test_ratios_are_of_rounds() -> None:
    assert paired([1.0, 8.0, 3.0], [2.0, 10.0, 4.0]) == 0.75


def test_the_bound_is_a_share_of_time() -> None:
    assert read_bound(1 << 20) > 0


def test_a_quick_run_is_smaller_and_keeps_its_shape() -> None:
    plan = Plan()
    quick = plan.quick()
    assert quick.rows < plan.rows
    assert quick.batch == plan.batch == 64
    assert arguments().parse_args([]).rounds == plan.rounds
