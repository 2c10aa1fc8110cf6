"""The engine's own decisions: refusals, stops, damage, what is counted."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import (
    Cancelled,
    CorruptData,
    DeadlineExceeded,
    IncompatibleRequest,
    InvalidInput,
    NotFound,
)
from ragschema.types import Metric, SearchBatch
from retrieval_node.cancel import Cancellation
from retrieval_node.engine import SearchEngine
from retrieval_node.local import LocalSearcher
from tests.retrieval_node.making import Plan, clustered, make

BACKENDS = ("simd", "fpga", "faiss")


def _exact(searcher: LocalSearcher, n: int = 2) -> SearchBatch:
    queries = clustered(n, searcher.manifest.dim, 4)
    shards = tuple(searcher.shard_set.shards)
    return SearchBatch(searcher.shard_set.snapshot, shards, queries, None, 3, exact=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_search_that_nobody_waits_for_is_stopped(name: str, tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(segments=(300, 40), fresh=True))
    searcher = LocalSearcher(made.directory, name)
    for batch in (searcher.batch(clustered(2, 16, 4), 3), _exact(searcher)):
        gone, late = Cancellation(), Cancellation(time.monotonic())
        gone.set()
        for cancel, error in ((gone, Cancelled), (late, DeadlineExceeded)):
            with pytest.raises(error):
                searcher._engine.search(searcher.shard_set, batch, cancel)
        in_time = Cancellation(time.monotonic() + 60)
        assert searcher._engine.search(searcher.shard_set, batch, in_time).counts.tolist() == [3, 3]
    searcher.close()


def test_what_was_scanned_is_counted(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(segments=(300, 40), fresh=True, shards=2))
    searcher = LocalSearcher(made.directory, "simd")
    batch = searcher.batch(clustered(2, 16, 4), 3, nprobe=8)
    stats = searcher.search(batch).stats
    assert stats.codes_scanned == 2 * 340
    stored = {s.vectors.itemsize for s in searcher.shard_set.shards[0].segments if s.exact}
    assert stats.bytes_scanned == 2 * (300 * 4 + 40 * 16 * stored.pop())
    assert stats.batch_queries == 2
    one = searcher.search(replace(batch, shards=(1,)))
    assert one.rows_covered == searcher.shard_set.shards[1].live_rows
    searcher.close()


def test_refuses_what_the_collection_cannot_do(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(refine=False))
    searcher = LocalSearcher(made.directory, "simd")
    good = searcher.batch(clustered(2, 16, 4), 3, nprobe=2)
    wrong = [
        (_exact(searcher), IncompatibleRequest, "no vectors"),
        (replace(good, exact=True), InvalidInput, "list_ids"),
        (replace(good, refine_k=9), IncompatibleRequest, "refine_k"),
        (replace(good, list_ids=np.array([[1, 1], [0, 2]], np.int32)), InvalidInput, "twice"),
        (replace(good, list_ids=np.array([[1, 8], [0, 2]], np.int32)), InvalidInput, "outside"),
        (replace(good, list_ids=np.array([[1, 2]], np.int32)), InvalidInput, "rows for 2"),
        (replace(good, list_ids=None), InvalidInput, "list_ids"),
        (replace(good, queries=np.full((2, 16), np.nan, np.float32)), InvalidInput, "vector 0"),
        (replace(good, queries=np.zeros((2, 15), np.float32)), InvalidInput, "components"),
        (replace(good, k=0), InvalidInput, "k: 0"),
        (replace(good, shards=(0, 0)), InvalidInput, "twice"),
        (replace(good, shards=(3,)), NotFound, "shard 3"),
    ]
    for batch, error, says in wrong:
        with pytest.raises(error, match=says):
            searcher.search(batch)
    gaps = replace(good, list_ids=np.array([[-1, -1], [2, -1]], np.int32))
    assert searcher.search(gaps).counts.tolist()[0] == 0
    searcher.close()


def test_a_sliced_read_only_batch_is_searched(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan())
    searcher = LocalSearcher(made.directory, "simd")
    queries = np.frombuffer(made.vectors[:4].tobytes(), dtype=np.float32).reshape(4, -1)
    assert not queries.flags.writeable
    whole = searcher.search(searcher.batch(queries, 5))
    some = searcher.search(searcher.batch(queries[::2], 5))
    np.testing.assert_array_equal(some.row_ids, whole.row_ids[::2])
    searcher.close()


def test_damage_on_disk_is_named_when_it_is_read(tmp_path: Path) -> None:
    """Opened without reading all of it; the block at fault is found by the scan."""
    plan = Plan(metric=Metric.IP, refine=False, segments=(400, 25_000))
    made = make(tmp_path / "c", plan)
    path = made.directory / made.manifest.segments[1].shards[0].path
    searcher = LocalSearcher(made.directory, "simd", verify_up_to_bytes=0)
    batch = searcher.batch(clustered(2, 16, 4), 3, nprobe=8)
    with path.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"damaged")
    with pytest.raises(CorruptData, match="at byte") as caught:
        searcher.search(batch)
    assert caught.value.field == str(path)
    searcher.close()


def test_an_engine_without_queries_answers_nothing(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(exact=True))
    searcher = LocalSearcher(made.directory, "simd")
    engine = SearchEngine(searcher._engine.backend)
    none = replace(_exact(searcher), queries=np.zeros((0, 16), np.float32), exact=False)
    assert engine.search(searcher.shard_set, none).distances.shape == (0, 3)
    searcher.close()
