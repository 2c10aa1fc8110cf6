"""Mapped block files: the head is verified on opening, blocks where they are touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData
from ragschema.storage.blockfile import BLOCK_BYTES, map_blockfile, write_blockfile
from retrieval_node.native.loader import native

A = np.arange(100_000, dtype=np.int64)
B = np.random.default_rng(2).standard_normal((999, 33)).astype(np.float16)
ARRAYS = {"a": A, "empty": np.zeros((0, 4), np.float32), "b": B}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_blockfile(tmp_path / "x.rag", "k", {"n": 3}, ARRAYS)
    return tmp_path / "x.rag"


def _flip(path: Path, at: int) -> None:
    """Puts a copy with one wrong bit in its place; what is mapped stays as it is."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.unlink()
    path.write_bytes(raw)


def test_arrays_are_views_that_nobody_can_write(path: Path) -> None:
    file = map_blockfile(path, "k")
    assert (file.kind, dict(file.meta)) == ("k", {"n": 3})
    for name, array in ARRAYS.items():
        mapped = file.arrays[name]
        np.testing.assert_array_equal(mapped, array)
        assert mapped.dtype == array.dtype
        assert not mapped.flags.writeable
        assert mapped.ctypes.data % 64 == 0 or not mapped.size
        assert np.shares_memory(mapped, file.data) or not mapped.size
    file.verify_all()
    assert file.sound


def test_the_mapping_outlives_the_name(path: Path) -> None:
    file = map_blockfile(path, "k")
    path.unlink()
    file.verify_all()
    np.testing.assert_array_equal(file.arrays["b"], B)


def test_damage_is_found_where_it_lies_and_nowhere_else(path: Path) -> None:
    whole = map_blockfile(path, "k")
    start, stop = whole.span("a")
    at = start + 5 * BLOCK_BYTES
    _flip(path, at)
    file = map_blockfile(path, "k")
    first = file.guard_arguments[1]
    block = first + (at - first) // BLOCK_BYTES * BLOCK_BYTES
    file.ensure(start, block)
    file.ensure(block + BLOCK_BYTES, stop)
    file.ensure_array("b")
    file.ensure(0, first)
    file.ensure(at, at)
    for low, high in ((at, at + 1), (block, block + 1), (block + BLOCK_BYTES - 1, stop)):
        with pytest.raises(CorruptData, match=rf"x\.rag.*offset {block} "):
            file.ensure(low, high)
    with pytest.raises(CorruptData):
        file.ensure_array("a")
    with pytest.raises(CorruptData):
        file.verify_all()
    assert not file.sound


def test_small_files_can_be_verified_at_once(path: Path) -> None:
    size = path.stat().st_size
    _flip(path, size - 1)
    map_blockfile(path, "k", verify_up_to_bytes=size - 1)
    with pytest.raises(CorruptData, match=r"x\.rag"):
        map_blockfile(path, "k", verify_up_to_bytes=size)


def test_every_byte_past_the_head_lies_in_a_block(path: Path) -> None:
    data, first, block_bytes, crcs = map_blockfile(path, "k").guard_arguments
    assert len(crcs) == -(-(len(data) - first) // block_bytes)
    for at in [first, first + block_bytes, *np.linspace(first, len(data) - 1, 30).astype(int)]:
        _flip(path, int(at))
        with pytest.raises(CorruptData):
            map_blockfile(path, "k").verify_all()
        _flip(path, int(at))


def test_the_native_guard_reads_the_same_table(path: Path) -> None:
    module = native()
    if module is None:
        pytest.skip("the extension was not built")
    start, stop = map_blockfile(path, "k").span("a")
    guard = module.Guard(*map_blockfile(path, "k").guard_arguments)
    assert guard.ensure(start, stop) is None
    at = start + 3 * BLOCK_BYTES
    _flip(path, at)
    guard = module.Guard(*map_blockfile(path, "k").guard_arguments)
    with pytest.raises(CorruptData, match=f"offset {guard.ensure(start, stop)} "):
        map_blockfile(path, "k").ensure(start, stop)
