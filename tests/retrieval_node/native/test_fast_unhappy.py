"""Mode ``fast`` when something is wrong: damage, cancellation, arguments."""

from __future__ import annotations

import threading
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ragschema.types import U8, Metric
from retrieval_node.layout import group_codes
from retrieval_node.native.loader import require_native
from tests.retrieval_node.native.fast_reference import Made, Shape, make

ISAS = require_native().machine_isas()
_BLOCK = 1024
_HEAD = 128


@dataclass(frozen=True, eq=False)
class Mapped:
    """A segment whose arrays lie in one 'file', checksummed by block."""

    file: U8
    guard: Any
    index: Any
    segment: Any
    at: dict[str, int]


def _mapped(made: Made, damage: str | None = None) -> Mapped:
    """``damage``: the array whose last byte is changed after the checksums were made."""
    part = made.parts[0]
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "codes": group_codes(part.codes, part.offsets),
        "ids": part.ids,
        "vectors": np.zeros((0, 1), np.float32) if part.vectors is None else part.vectors,
    }
    at, size = {}, _HEAD
    for name, array in arrays.items():
        at[name] = size
        size += -(-array.nbytes // 64) * 64
    file = np.zeros(size, np.uint8)
    for name, array in arrays.items():
        file[at[name] : at[name] + array.nbytes] = array.reshape(-1).view(np.uint8)
    crcs = [zlib.crc32(file[i : i + _BLOCK]) for i in range(_HEAD, size, _BLOCK)]
    if damage is not None:
        file[at[damage] + arrays[damage].nbytes - 1] ^= 1
    guard = require_native().Guard(file, _HEAD, _BLOCK, np.array(crcs, np.uint32))
    views = {
        name: file[at[name] : at[name] + array.nbytes].view(array.dtype).reshape(array.shape)
        for name, array in arrays.items()
    }
    index, _ = made.handles(ISAS[0])
    segment = require_native().Segment(
        index, part.offsets, views["codes"], None, None, views["ids"], 0, part.row_count,
        views["vectors"] if part.vectors is not None else None, guard,
    )  # fmt: skip
    return Mapped(file, guard, index, segment, at)


def _ip(**changes: Any) -> Made:
    """Inner products have no bias arrays, which keeps the 'file' short."""
    return make(replace(Shape(Metric.IP, nlist=4, rows=(700,)), **changes), seed=1)


def test_blocks_are_verified_as_lists_are_touched() -> None:
    made = _ip()
    mapped, pool, scan = _mapped(made), require_native().Pool(1), require_native()
    assert mapped.guard.verified_blocks == 0
    query = made.queries(1)
    first = scan.search(mapped.index, [mapped.segment], query, np.array([[0]], np.int32), 5, pool)
    touched = mapped.guard.verified_blocks
    assert 0 < touched < len(mapped.file) // _BLOCK
    again = scan.search(mapped.index, [mapped.segment], query, np.array([[0]], np.int32), 5, pool)
    assert mapped.guard.verified_blocks == touched
    np.testing.assert_array_equal(first.rows, again.rows)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("damage", ["codes", "ids"])
def test_a_damaged_list_is_reported_with_its_block(damage: str, threads: int) -> None:
    made = _ip()
    mapped, scan = _mapped(made, damage), require_native()
    lists = np.tile(np.arange(4, dtype=np.int32), (3, 1))
    found = scan.search(
        mapped.index, [mapped.segment], made.queries(3), lists, 5, scan.Pool(threads)
    )
    assert found.stopped == "corrupt"
    assert found.corrupt_segment == 0
    size = made.parts[0].codes.size if damage == "codes" else made.parts[0].ids.nbytes
    assert (found.corrupt_offset - _HEAD) % _BLOCK == 0
    assert found.corrupt_offset < mapped.at[damage] + size + 4 * 64 * 8
    assert found.corrupt_offset + _BLOCK > mapped.at[damage]


def test_damaged_vectors_are_found_when_they_are_read() -> None:
    made = _ip(vectors=np.float32)
    mapped, scan = _mapped(made, "vectors"), require_native()
    lists = np.arange(4, dtype=np.int32)[None, :]
    arguments = (mapped.index, [mapped.segment], made.queries(1), lists, 700, scan.Pool(1))
    assert scan.search(*arguments).stopped == ""
    refined = scan.search(*arguments, refine_k=700)
    assert refined.stopped == "corrupt"
    assert refined.corrupt_offset + _BLOCK > mapped.at["vectors"]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_id_out_of_range_is_reported_not_used(isa: str, live: bool) -> None:
    made = make(Shape(nlist=1, rows=(200,)), seed=2)
    made.parts[0].ids[150] = made.parts[0].row_count
    index, segments = made.handles(isa)
    scan = require_native()
    found = scan.search(
        index, segments, made.queries(1), np.zeros((1, 1), np.int32), 200, scan.Pool(1),
        live=np.full(100, 255, np.uint8) if live else None,
    )  # fmt: skip
    assert found.stopped == "corrupt"
    assert found.corrupt_offset == 150 * 4


def test_a_cancelled_search_says_so() -> None:
    made = make(Shape(), seed=3)
    index, segments = made.handles(ISAS[0])
    scan = require_native()
    cancel = scan.Cancel()
    arguments = (index, segments, made.queries(2), made.lists(2, 3), 5, scan.Pool(1))
    assert scan.search(*arguments, cancel=cancel).stopped == ""
    cancel.set()
    assert scan.search(*arguments, cancel=cancel).stopped == "cancelled"


@pytest.mark.parametrize("order", ["query", "list"])
def test_a_deadline_on_the_monotonic_clock(order: str) -> None:
    made = make(Shape(), seed=4)
    index, segments = made.handles(ISAS[0])
    scan = require_native()
    arguments = (index, segments, made.queries(2), made.lists(2, 3), 5, scan.Pool(1))
    late = scan.Cancel(time.monotonic() + 60.0)
    assert scan.search(*arguments, cancel=late, order=order).stopped == ""
    gone = scan.Cancel(time.monotonic() - 1e-3)
    assert scan.search(*arguments, cancel=gone, order=order).stopped == "deadline"


def test_several_callers_share_a_pool_and_a_segment() -> None:
    made = make(Shape(nlist=3, rows=(6000,)), seed=5)
    index, segments = made.handles(ISAS[0])
    scan = require_native()
    pool, queries, lists = scan.Pool(3), made.queries(24), made.lists(24, 3)
    want = scan.search(index, segments, queries, lists, 20, scan.Pool(1))
    failed: list[str] = []

    def caller(number: int) -> None:
        for turn in range(15):
            n = 1 + (number + turn) % 24
            found = scan.search(index, segments, queries[:n], lists[:n], 20, pool)
            if not np.array_equal(found.rows, want.rows[:n]):
                failed.append(f"caller {number}, turn {turn}")

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"queries": np.zeros((2, 31), np.float32)}, "queries"),
        ({"queries": np.zeros((2, 64), np.float32)[:, ::2]}, "queries"),
        ({"queries": np.zeros((2, 32))}, "queries"),
        ({"lists": np.zeros((1, 2), np.int32)}, "lists"),
        ({"lists": np.full((2, 2), 7, np.int32)}, "lists"),
        ({"lists": np.full((2, 2), -2, np.int32)}, "lists"),
        ({"lists": np.zeros((2, 2), np.int64)}, "lists"),
        ({"k": 0}, "k"),
        ({"refine_k": 3}, "refine_k"),
        ({"refine_k": 10}, "refine_k"),
        ({"order": "fastest"}, "order"),
        ({"live": np.zeros(9, np.int8)}, "live"),
        ({"filters": np.zeros((1, 9), np.uint8)}, "filter_of"),
        (
            {"filters": np.zeros((1, 9), np.uint8), "filter_of": np.full(2, 1, np.int32)},
            "filter_of",
        ),
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, Any], named: str) -> None:
    made = make(Shape(), seed=6)
    index, segments = made.handles(ISAS[0])
    given: dict[str, Any] = {
        "index": index, "segments": segments, "queries": made.queries(2),
        "lists": made.lists(2, 2), "k": 5, "pool": require_native().Pool(1),
    }  # fmt: skip
    require_native().search(**given)
    with pytest.raises(ValueError, match=named):
        require_native().search(**(given | changes))
