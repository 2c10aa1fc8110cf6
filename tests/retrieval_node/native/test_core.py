"""What all modes share: the pool, the guard, the checks of indexes and segments."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np
import pytest

from ragschema.types import U8
from retrieval_node.native.loader import require_native

_BLOCK = 1 << 16


def _file(size: int, first: int) -> tuple[U8, Any]:
    file = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    crcs = [zlib.crc32(file[i : i + _BLOCK]) for i in range(first, size, _BLOCK)]
    return file, np.array(crcs, np.uint32)


@pytest.mark.parametrize("size", [100, _BLOCK, 3 * _BLOCK + 100, 70 * _BLOCK + 1])
def test_a_guard_verifies_only_what_is_touched(size: int) -> None:
    first = 100
    file, crcs = _file(size, first)
    guard = require_native().Guard(file, first, _BLOCK, crcs)
    assert guard.ensure(0, first) is None
    assert guard.verified_blocks == 0
    assert guard.ensure(size - 1, size) is None
    assert guard.verified_blocks == min(1, len(crcs))
    assert guard.ensure(0, size) is None
    assert guard.verified_blocks == len(crcs)


def test_a_guard_names_the_first_bad_block() -> None:
    file, crcs = _file(5 * _BLOCK, 0)
    file[3 * _BLOCK + 7] ^= 128
    guard = require_native().Guard(file, 0, _BLOCK, crcs)
    assert guard.ensure(0, 3 * _BLOCK) is None
    assert guard.ensure(0, len(file)) == 3 * _BLOCK
    assert guard.ensure(3 * _BLOCK, 3 * _BLOCK + 1) == 3 * _BLOCK
    assert guard.ensure(4 * _BLOCK, len(file)) is None
    assert guard.verified_blocks == 4


@pytest.mark.parametrize(
    ("first", "block_bytes", "crcs", "named"),
    [(0, 10, 9, "crcs"), (0, 10, 11, "crcs"), (101, 10, 0, "first"), (-1, 10, 10, "first"),
     (0, 0, 10, "block_bytes")],
)  # fmt: skip
def test_a_guard_refuses_numbers_that_do_not_fit(
    first: int, block_bytes: int, crcs: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        require_native().Guard(
            np.zeros(100, np.uint8), first, block_bytes, np.zeros(crcs, np.uint32)
        )


def test_a_pool_says_how_many_threads_it_has() -> None:
    cpu = min(os.sched_getaffinity(0))
    assert require_native().Pool(1).threads == 1
    assert require_native().Pool(3, [cpu]).threads == 3


@pytest.mark.parametrize(
    ("threads", "cpus", "named"), [(0, [], "threads"), (2, [-1], "cpus"), (2, [99_999], "cpus")]
)
def test_a_pool_refuses_what_it_cannot_have(threads: int, cpus: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        require_native().Pool(threads, cpus)


def _index_arguments(**changes: Any) -> dict[str, Any]:
    return {
        "metric": "l2",
        "centroids": np.zeros((3, 8), np.float32),
        "codebooks": np.zeros((2, 256, 4), np.float32),
        "shift": np.zeros(8, np.float32),
    } | changes


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metric": "hamming"}, "metric"),
        ({"isa": "z80"}, "isa"),
        ({"centroids": np.zeros((0, 8), np.float32)}, "centroids"),
        ({"centroids": np.zeros((3, 8))}, "centroids"),
        ({"codebooks": np.zeros((2, 256, 5), np.float32)}, "codebooks"),
        ({"codebooks": np.zeros((2, 16, 4), np.float32)}, "codebooks"),
        ({"shift": np.zeros(7, np.float32)}, "shift"),
    ],
)
def test_an_index_refuses_what_does_not_fit(changes: dict[str, Any], named: str) -> None:
    require_native().Index(**_index_arguments())
    with pytest.raises(ValueError, match=named):
        require_native().Index(**_index_arguments(**changes))


def _segment(index: Any, **changes: Any) -> Any:
    given = {
        "index": index,
        "list_offsets": np.array([0, 1, 1, 70], np.int64),
        "codes": np.zeros(3 * 64 * 2, np.uint8),
        "bias": np.zeros(3 * 64, np.uint16),
        "bias_affine": np.zeros((3, 2), np.float32),
        "ids": np.arange(70, dtype=np.uint32),
        "row_start": 0,
        "row_count": 70,
        "vectors": None,
        "guard": None,
    }
    return require_native().Segment(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"list_offsets": np.array([0, 1, 1, 69], np.int64)}, "list_offsets"),
        ({"list_offsets": np.array([1, 1, 1, 70], np.int64)}, "list_offsets"),
        ({"list_offsets": np.array([0, 9, 1, 70], np.int64)}, "list_offsets"),
        (
            {
                "list_offsets": np.array([0, 70], np.int64),
                "bias_affine": np.zeros((1, 2), np.float32),
            },
            "list_offsets",
        ),
        ({"list_offsets": np.zeros(0, np.int64)}, "list_offsets"),
        ({"codes": np.zeros(3 * 64 * 2 - 1, np.uint8)}, "codes"),
        ({"codes": np.zeros(3 * 64 * 2, np.int8)}, "codes"),
        ({"bias": None}, "bias"),
        ({"bias": np.zeros(64, np.uint16)}, "bias"),
        ({"bias_affine": None}, "bias_affine"),
        ({"bias_affine": np.full((3, 2), np.nan, np.float32)}, "bias_affine"),
        ({"bias_affine": np.full((3, 2), -1, np.float32)}, "bias_affine"),
        ({"row_count": 69}, "row_count"),
        ({"row_start": -1}, "row_start"),
        ({"vectors": np.zeros((69, 8), np.float32)}, "vectors"),
        ({"vectors": np.zeros((70, 8))}, "vectors"),
        ({"index": None}, "index"),
    ],
)
def test_a_segment_refuses_what_does_not_fit(changes: dict[str, Any], named: str) -> None:
    index = require_native().Index(**_index_arguments())
    assert _segment(index).rows == 70
    with pytest.raises(ValueError, match=named):
        _segment(**({"index": index} | changes))


def test_a_segment_whose_offsets_are_damaged_is_refused() -> None:
    index = require_native().Index(**_index_arguments())
    file = np.zeros(4096, np.uint8)
    file[:32].view(np.int64)[:] = [0, 1, 1, 70]
    crcs = np.array([zlib.crc32(file)], np.uint32)
    guard = require_native().Guard(file, 0, 4096, crcs)
    offsets = file[:32].view(np.int64)
    assert _segment(index, list_offsets=offsets, guard=guard).rows == 70
    file[3000] = 1
    guard = require_native().Guard(file, 0, 4096, crcs)
    with pytest.raises(ValueError, match="list_offsets"):
        _segment(index, list_offsets=offsets, guard=guard)


def test_a_plain_read_reads_and_refuses() -> None:
    scan = require_native()
    data = np.zeros(8192, np.uint8)
    data[4097] = 1
    assert {scan.read_memory(data, streams) for streams in (1, 2, 4, 8)} == {1 << 8}
    with pytest.raises(ValueError, match="streams"):
        scan.read_memory(data, 3)
