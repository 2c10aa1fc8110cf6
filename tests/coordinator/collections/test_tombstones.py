"""Tombstone files that were written wrong are refused, not believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.tombstones import live_bitmap, write_tombstones
from ragschema.errors import CorruptData
from ragschema.storage.manifest import commit_manifest, read_manifest
from tests.coordinator.collections.making import Doc, make_collection


def test_bits_of_live_rows() -> None:
    assert live_bitmap(10, np.array([0, 9])).tolist() == [0b11111110, 0b01]
    assert live_bitmap(0, np.empty(0, np.int64)).tolist() == []


def test_no_rows_need_no_file(tmp_path: Path) -> None:
    assert write_tombstones(tmp_path, 1, np.empty(0, np.int64)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [[1, 1], [2, 1], [-1], [3]])
def test_impossible_rows(tmp_path: Path, rows: list[int]) -> None:
    directory = make_collection(tmp_path, "c", [Doc("a", ("t", "t", "t"))]).directory("c")
    old = read_manifest(directory)
    ref = write_tombstones(directory, 9, np.array(rows))
    commit_manifest(directory, replace(old, tombstones=ref, live_rows=old.live_rows - len(rows)))
    with pytest.raises(CorruptData, match="tomb-000009"):
        Snapshot.open(directory)
