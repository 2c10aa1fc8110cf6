"""What an unfinished build has encoded, kept so that the next one goes on from there.

Three files: lists (int32 per row), codes (m bytes per row), and a journal with
a record per finished block. A record names the checksums of the block's input
and output, so a block is taken over only when both are still what they were.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragschema.types import I32, U8

_RECORD = struct.Struct("<IIII")
#: A journal names at most this many bytes of settings.
_MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class Shape:
    """What is encoded.

    Attributes:
        fingerprint: of the index; another one starts over.
        block_rows: rows per journalled block.
    """

    fingerprint: str
    rows: int
    m: int
    block_rows: int


class EncodeScratch:
    """Lists and codes of all rows, filled block by block from any thread.

    Args:
        folder: made when it is not there.

    Raises:
        OSError: naming the file; there is no room for it.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._shape = shape
        self._journal = folder / "journal"
        self._lists = folder / "lists"
        self._codes = folder / "codes"
        self._guard = threading.Lock()
        self._done = self._earlier()
        if self._done is None:
            self._start_over()
            self._done = {}

    def lists(self) -> I32:
        """int32 [rows], mapped; valid for finished blocks."""
        if not self._shape.rows:  # nothing cannot be mapped
            return np.zeros(0, dtype=np.int32)
        return np.memmap(self._lists, dtype=np.int32, mode="r", shape=(self._shape.rows,))

    def codes(self) -> U8:
        """uint8 [rows, m], mapped; valid for finished blocks."""
        shape = (self._shape.rows, self._shape.m)
        if not self._shape.rows:
            return np.zeros(shape, dtype=np.uint8)
        return np.memmap(self._codes, dtype=np.uint8, mode="r", shape=shape)

    def has(self, block: int, input_crc: int) -> bool:
        """Whether the block was encoded from this very input and is still whole."""
        record = (self._done or {}).get(block)
        if record is None or record[0] != input_crc:
            return False
        first, last = self._rows(block)
        crc = zlib.crc32(np.ascontiguousarray(self.lists()[first:last]).data)
        return zlib.crc32(np.ascontiguousarray(self.codes()[first:last]).data, crc) == record[1]

    def put(self, block: int, input_crc: int, lists: I32, codes: U8) -> None:
        """Keeps a block; it survives the death of this process from here on."""
        first, _ = self._rows(block)
        self._write(self._lists, 4 * first, lists.astype("<i4"))
        self._write(self._codes, self._shape.m * first, codes)
        crc = zlib.crc32(codes.data, zlib.crc32(lists.astype("<i4").data))
        record = _RECORD.pack(block, input_crc, crc, 0)[:12]
        with self._guard, self._journal.open("ab") as out:
            out.write(record + struct.pack("<I", zlib.crc32(record)))

    def _rows(self, block: int) -> tuple[int, int]:
        first = block * self._shape.block_rows
        return first, min(self._shape.rows, first + self._shape.block_rows)

    def _settings(self) -> Mapping[str, Any]:
        s = self._shape
        return {"fingerprint": s.fingerprint, "rows": s.rows, "m": s.m, "block": s.block_rows}

    def _earlier(self) -> dict[int, tuple[int, int]] | None:
        """(input crc, output crc) by block; None when there is nothing to go on from."""
        try:
            sizes = (self._lists.stat().st_size, self._codes.stat().st_size)
            header, _, records = self._journal.read_bytes().partition(b"\n")
            known = json.loads(header[:_MAX_HEADER_BYTES])
        except (OSError, ValueError):
            return None
        if known != self._settings() or sizes != self._sizes():
            return None
        done = {}
        for at in range(0, len(records) - _RECORD.size + 1, _RECORD.size):
            block, input_crc, output_crc, crc = _RECORD.unpack_from(records, at)
            if zlib.crc32(records[at : at + 12]) == crc:
                done[block] = (input_crc, output_crc)
        return done

    def _sizes(self) -> tuple[int, int]:
        return 4 * self._shape.rows, self._shape.m * self._shape.rows

    def _start_over(self) -> None:
        self._journal.unlink(missing_ok=True)
        for path, size in zip((self._lists, self._codes), self._sizes(), strict=True):
            with path.open("wb") as out:
                _reserve(out.fileno(), size, path)
        header = json.dumps(self._settings()).encode("ascii") + b"\n"
        with self._journal.open("wb") as out:
            out.write(header)

    @staticmethod
    def _write(path: Path, offset: int, data: np.ndarray[Any, Any]) -> None:
        with path.open("r+b") as out:
            out.seek(offset)
            out.write(data.data)


def _reserve(handle: int, size: int, path: Path) -> None:
    """Room for the whole file now, so that a mapped page always has one."""
    try:
        if size:
            os.posix_fallocate(handle, 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
