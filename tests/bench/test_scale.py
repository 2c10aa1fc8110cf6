"""The made-up collections of the scale benchmark are real ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from bench import scale
from bench.scale_build import write_vectors
from bench.scale_data import Synthetic, write_collection
from retrieval_node.bias import BiasEncoder
from retrieval_node.layout import lane_offsets
from retrieval_node.native.loader import native
from retrieval_node.shard import ShardReader


@pytest.mark.parametrize("shards", [1, 3])
def test_rows_are_spread_evenly_and_bias_terms_are_true(tmp_path: Path, shards: int) -> None:
    plan = Synthetic(1000, nlist=7, m=4, dim=8, num_shards=shards)
    manifest = write_collection(tmp_path / "c", plan)
    loaded = ShardReader().open(tmp_path / "c", manifest, range(shards))
    assert loaded.index is not None
    encoder = BiasEncoder(loaded.index)
    ids = []
    for shard in loaded.shards.values():
        (segment,) = shard.segments
        segment.file.verify_all()
        ids += segment.row_ids().tolist()
        sizes = np.diff(segment.list_offsets)
        assert sizes.max() - sizes.min() <= 1
        assert segment.bias is not None
        assert segment.bias_affine is not None
        lanes, codes = lane_offsets(segment.list_offsets), segment.row_codes()
        for number in range(7):
            mine = codes[segment.list_offsets[number] : segment.list_offsets[number + 1]]
            stored, affine = encoder.encode(number, mine)
            np.testing.assert_array_equal(segment.bias[lanes[number] : lanes[number + 1]], stored)
            np.testing.assert_array_equal(segment.bias_affine[number], affine)
    assert sorted(ids) == list(range(1000))


def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if native() is None:
        pytest.skip("the extension was not built")
    monkeypatch.setattr(scale, "_MILLION", 5_000)
    monkeypatch.setattr(scale, "_SPARSE_ROWS", 1_000_000)
    given = argparse.Namespace(millions=[1, 2], rounds=2, data_dir=tmp_path)
    result = scale.measure(given)
    assert result["scale_latency_growth"] >= 1
    assert set(result["sizes"]) == {"1M", "2M"}
    assert result["open_100m_ms"] > 0
    assert not list(tmp_path.iterdir())


def test_vectors_to_build_from_come_in_chunks(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.npy", 70_000)
    made = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert made.shape == (70_000, 128)
    assert np.abs(made).max(axis=1).min() > 0
