from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import Cancelled
from ragschema.types import Metric
from retrieval_node.backends.fpga import backend as fpga
from retrieval_node.backends.fpga.backend import FpgaBackend
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.cancel import Cancellation
from retrieval_node.engine import SearchEngine
from retrieval_node.local import LocalSearcher
from tests.retrieval_node.making import Plan, clustered, make


class Counting(Cancellation):
    """Counts how often a search asks whether it should stop."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def check(self) -> None:
        self.times += 1


def test_device_memory_is_freed_with_the_last_snapshot_that_needs_it(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(dead=(1,)))
    device = EmulatedDevice(EmulatorConfig(banks=1))
    whole = device.free_bytes(0)
    searcher = LocalSearcher(made.directory, FpgaBackend(device))
    assert device.free_bytes(0) < whole
    del searcher
    gc.collect()
    assert device.free_bytes(0) == whole
    device.close()


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_small_pieces_give_the_same_answer(
    tmp_path: Path, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "c", Plan(metric=metric))
    searcher = LocalSearcher(made.directory, "fpga")
    queries = clustered(20, 16, 8)
    bitmap = np.full(50, 0b01110111, dtype=np.uint8)
    batch = replace(
        searcher.batch(queries, 7, nprobe=5),
        filters=(bitmap,),
        filter_of=(np.arange(20) % 2 - 1).astype(np.int32),
    )
    whole = searcher.search(batch)
    monkeypatch.setattr(fpga, "_PIECE_BYTES", 5000)
    asked = Counting()
    result = SearchEngine(searcher._engine.backend).search(searcher.shard_set, batch, asked)
    assert asked.times > 10
    np.testing.assert_array_equal(result.row_ids, whole.row_ids)
    assert result.distances.tobytes() == whole.distances.tobytes()
    searcher.close()


def test_a_stopped_scan_gives_its_compute_unit_back(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan())
    searcher = LocalSearcher(made.directory, "fpga")
    batch = searcher.batch(clustered(3, 16, 8), 3)

    gone = Cancellation()
    gone.set()
    for _ in range(3):
        with pytest.raises(Cancelled):
            searcher._engine.search(searcher.shard_set, batch, gone)
    assert searcher.search(batch).counts.tolist() == [3, 3, 3]
    searcher.close()


def test_threads_search_at_once_and_agree(tmp_path: Path) -> None:
    made = make(tmp_path / "c", Plan(shards=2))
    searcher = LocalSearcher(made.directory, "fpga", threads=3)
    batches = [searcher.batch(clustered(4, 16, seed), 5) for seed in range(12)]
    want = [searcher.search(batch) for batch in batches]
    with ThreadPoolExecutor(6) as threads:
        got = list(threads.map(searcher.search, batches))
    for a, b in zip(want, got, strict=True):
        assert a.distances.tobytes() == b.distances.tobytes()
        np.testing.assert_array_equal(a.row_ids, b.row_ids)
    searcher.close()
