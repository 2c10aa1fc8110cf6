"""Writing block files, also such as do not fit in memory."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ragschema.storage.blockhead import BLOCK_BYTES, Head, encode_head, entry_of, place

#: File systems that cannot reserve room say so with one of these.
_CANNOT_RESERVE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@dataclass(frozen=True)
class StreamedArray:
    """An array that is written piece by piece.

    Attributes:
        dtype: numpy name, such as "uint8"; stored little-endian.
        chunks: called once; its arrays make up this one, in row-major order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[NDArray[Any]]]


def write_blockfile(
    path: Path, kind: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Writes and fsyncs the file. The caller makes it visible (rename, manifest).

    Raises:
        OSError: it cannot be written; what is there then is no block file.
    """
    write_streamed(path, kind, meta, [_whole(name, array) for name, array in arrays.items()])


def _whole(name: str, array: NDArray[Any]) -> StreamedArray:
    return StreamedArray(name, array.dtype.newbyteorder("=").name, array.shape, lambda: (array,))


def write_streamed(
    path: Path, kind: str, meta: Mapping[str, Any], arrays: Sequence[StreamedArray]
) -> None:
    """Like ``write_blockfile``, holding one chunk in memory at a time.

    Room for the whole file is reserved first: a full disk shows at once.
    """
    entries = [entry_of(a.name, np.dtype(a.dtype), a.shape) for a in arrays]
    head = place(kind, meta, entries)
    with path.open("wb") as out:
        _reserve(out, head.file_bytes)
        out.seek(head.first)
        body = _Body(out, head)
        for entry, array in zip(head.entries, arrays, strict=True):
            body.pad_to(entry.offset)
            dtype = np.dtype(entry.dtype)
            for chunk in array.chunks():
                body.write(np.ascontiguousarray(chunk, dtype=dtype).reshape(-1).view(np.uint8))
            assert body.at == entry.stop, f"chunks of {entry.name} do not make up its shape"
        body.finish()
        # The head comes last: until then the file is refused for its magic.
        out.seek(0)
        out.write(encode_head(replace(head, crcs=body.crcs)))
        out.flush()
        os.fsync(out.fileno())


def _reserve(out: BinaryIO, size: int) -> None:
    try:
        os.posix_fallocate(out.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise OSError(error.errno, error.strerror, str(out.name)) from error


class _Body:
    """The checksummed part of a file: appends and sums up block by block.

    Attributes:
        at: offset in the file of the next byte.
        crcs: uint32 [blocks]; complete after ``finish``.
    """

    def __init__(self, out: BinaryIO, head: Head) -> None:
        self._out = out
        self._first = head.first
        self._crc = 0
        self.at = head.first
        self.crcs = head.crcs.copy()

    def pad_to(self, offset: int) -> None:
        self.write(np.zeros(offset - self.at, dtype=np.uint8))

    def write(self, data: NDArray[np.uint8]) -> None:
        done = 0
        while done < len(data):
            at = self.at - self._first
            piece = data[done : done + BLOCK_BYTES - at % BLOCK_BYTES]
            self._crc = zlib.crc32(piece.data, self._crc)
            self.at += len(piece)
            done += len(piece)
            if (self.at - self._first) % BLOCK_BYTES == 0:
                self._close_block(at // BLOCK_BYTES)
        if len(data):
            self._out.write(data.data)

    def finish(self) -> None:
        """Ends the last block, which may be short."""
        if (self.at - self._first) % BLOCK_BYTES:
            self._close_block((self.at - self._first) // BLOCK_BYTES)

    def _close_block(self, number: int) -> None:
        self.crcs[number] = self._crc
        self._crc = 0
