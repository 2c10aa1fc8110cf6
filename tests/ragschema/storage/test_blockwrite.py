"""Writing block files piece by piece, and failing to."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData
from ragschema.storage import blockwrite
from ragschema.storage.blockfile import (
    BLOCK_BYTES,
    StreamedArray,
    read_blockfile,
    write_blockfile,
    write_streamed,
)

CODES = np.random.default_rng(1).integers(0, 256, (50_000, 5), dtype=np.uint8)
IDS = np.arange(50_000, dtype=np.uint32)


def _in_pieces(sizes: list[int]) -> list[StreamedArray]:
    def pieces(array: np.ndarray) -> Iterator[np.ndarray]:  # type: ignore[type-arg]
        at = 0
        for size in sizes:
            yield array[at : at + size]
            at += size
        yield array[at:]

    return [
        StreamedArray("codes", "uint8", CODES.shape, lambda: pieces(CODES)),
        # Converted on the way, as row numbers are to row ids.
        StreamedArray("ids", "uint32", IDS.shape, lambda: pieces(IDS.astype(np.int64))),
    ]


@pytest.mark.parametrize("sizes", [[], [1], [0, 7, 13_107, 0], [BLOCK_BYTES // 5] * 3, [1000] * 49])
def test_pieces_make_the_same_file_as_the_whole(tmp_path: Path, sizes: list[int]) -> None:
    write_blockfile(tmp_path / "whole.rag", "k", {"a": 1}, {"codes": CODES, "ids": IDS})
    write_streamed(tmp_path / "parts.rag", "k", {"a": 1}, _in_pieces(sizes))
    assert (tmp_path / "parts.rag").read_bytes() == (tmp_path / "whole.rag").read_bytes()
    read_blockfile(tmp_path / "parts.rag", "k")


def test_pieces_that_do_not_add_up_are_a_defect(tmp_path: Path) -> None:
    short = StreamedArray("a", "uint8", (10,), lambda: (np.zeros(9, np.uint8),))
    with pytest.raises(AssertionError, match="do not make up"):
        write_streamed(tmp_path / "x.rag", "k", {}, [short])
    with pytest.raises(CorruptData):
        read_blockfile(tmp_path / "x.rag", "k")


def test_a_file_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    def dies() -> Iterator[np.ndarray]:  # type: ignore[type-arg]
        yield CODES[:40_000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_streamed(
            tmp_path / "x.rag", "k", {}, [StreamedArray("codes", "uint8", CODES.shape, dies)]
        )
    with pytest.raises(CorruptData, match="magic"):
        read_blockfile(tmp_path / "x.rag", "k")


def test_no_room_shows_before_anything_is_computed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = []
    array = StreamedArray("codes", "uint8", CODES.shape, lambda: asked.append(1) or (CODES,))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"x\.rag") as caught:
            write_streamed(tmp_path / "x.rag", "k", {}, [array])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert not asked


def test_file_systems_that_cannot_reserve_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    write_blockfile(tmp_path / "x.rag", "k", {}, {"ids": IDS})
    np.testing.assert_array_equal(read_blockfile(tmp_path / "x.rag", "k").arrays["ids"], IDS)


def test_content_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(blockwrite.os, "fsync", lambda handle: (synced.append(1), fsync(handle)))
    write_blockfile(tmp_path / "x.rag", "k", {}, {"ids": IDS})
    assert synced
