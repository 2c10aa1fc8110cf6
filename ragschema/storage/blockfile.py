"""A file of named, checksummed arrays: read whole, or mapped and verified as touched.

``blockhead`` tells the layout, ``blockwrite`` writes. Nothing is trusted before
it is verified: the head when a file is opened, the rest block by block. Files
are never changed in place; whoever replaces one renames another over it.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData
from ragschema.storage.blockhead import (
    BLOCK_BYTES,
    FORMAT_VERSION,
    U32,
    Head,
    blocks_in,
    corrupt,
    read_head,
)
from ragschema.storage.blockwrite import StreamedArray, write_blockfile, write_streamed

__all__ = [
    "BLOCK_BYTES",
    "FORMAT_VERSION",
    "VERIFY_UP_TO_BYTES",
    "BlockFile",
    "MappedBlockFile",
    "StreamedArray",
    "map_blockfile",
    "read_blockfile",
    "write_blockfile",
    "write_streamed",
]

#: Files up to this size are best verified whole when they are opened: it takes milliseconds.
VERIFY_UP_TO_BYTES = 32 << 20

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class BlockFile:
    """A file that was read and verified whole."""

    path: Path
    kind: str
    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class MappedBlockFile:
    """A mapped file whose head is verified; its blocks are on demand.

    Reading an array before ``ensure`` of its bytes reads what nobody vouches for.

    Attributes:
        path: where it lies.
        kind: what it is.
        meta: what its writer noted.
        arrays: read-only views of the mapping.
        data: uint8 [file bytes], the whole mapping.
    """

    def __init__(self, path: Path, head: Head, mapping: mmap.mmap) -> None:
        self.path = path
        self.kind = head.kind
        self.meta = head.meta
        self.data: U8 = np.frombuffer(mapping, dtype=np.uint8)
        self._head = head
        self._mapping = mapping
        self._places = {e.name: (e.offset, e.stop) for e in head.entries}
        self.arrays: Mapping[str, NDArray[Any]] = {
            e.name: self.data[e.offset : e.stop].view(e.dtype).reshape(e.shape)
            for e in head.entries
        }
        # Threads may race here; the worst is that a block is verified twice.
        self._sound = np.zeros(len(head.crcs), dtype=np.bool_)

    @property
    def guard_arguments(self) -> tuple[U8, int, int, U32]:
        """(file, first, block_bytes, crcs), as the native Guard takes them."""
        return self.data, self._head.first, BLOCK_BYTES, self._head.crcs

    @property
    def sound(self) -> bool:
        """Whether every block was verified already."""
        return bool(self._sound.all())

    def span(self, name: str) -> tuple[int, int]:
        """Offsets of an array's first byte and of the one past its last."""
        return self._places[name]

    def ensure(self, start: int, stop: int) -> None:
        """Verifies the blocks that bytes start..stop-1 of the file lie in.

        Raises:
            CorruptData: naming the file and the offset of the first bad block.
        """
        first = self._head.first
        low = max(0, start - first) // BLOCK_BYTES
        high = min(len(self._sound), blocks_in(max(0, stop - first)))
        for block in np.flatnonzero(~self._sound[low:high]) + low:
            at = first + int(block) * BLOCK_BYTES
            if zlib.crc32(self.data[at : at + BLOCK_BYTES].data) != self._head.crcs[block]:
                raise corrupt(self.path, f"checksum of the block at offset {at} does not match")
            self._sound[block] = True

    def ensure_array(self, name: str) -> None:
        """Verifies all of an array; see ``ensure``."""
        self.ensure(*self.span(name))

    def verify_all(self) -> None:
        """Verifies every block; see ``ensure``."""
        self.ensure(0, len(self.data))

    def will_need(self, name: str) -> None:
        """Asks the kernel to read an array in the background."""
        start, stop = self.span(name)
        self._advise(mmap.MADV_WILLNEED, start, stop)

    def at_random(self, name: str) -> None:
        """Tells the kernel that an array is read here and there: no read-ahead."""
        start, stop = self.span(name)
        self._advise(mmap.MADV_RANDOM, start, stop)

    def forget(self, name: str) -> None:
        """Tells the kernel that an array is not needed again soon."""
        start, stop = self.span(name)
        self._advise(mmap.MADV_DONTNEED, start, stop)

    def _advise(self, advice: int, start: int, stop: int) -> None:
        low = start // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > low:
            self._mapping.madvise(advice, low, stop - low)


def map_blockfile(path: Path, kind: str, verify_up_to_bytes: int = 0) -> MappedBlockFile:
    """Maps a file; its head, length and arrays' places are verified, its data is not.

    Args:
        kind: what the file must be; another kind is refused.
        verify_up_to_bytes: smaller files are verified whole at once.

    Raises:
        CorruptData: naming the file and the offset or array at fault.
    """
    head = read_head(path)
    if head.kind != kind:
        raise corrupt(path, f"holds {head.kind!r}, expected {kind!r}")
    try:
        with path.open("rb") as source:
            mapping = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CorruptData(f"cannot map {path}: {error}", field=str(path)) from error
    if len(mapping) != head.file_bytes:
        raise corrupt(path, "changed while it was opened")
    try:
        file = MappedBlockFile(path, head, mapping)
    except ValueError as error:  # a side of 0 beside others too large for any array
        raise corrupt(path, "an array has a shape that no array can have") from error
    if head.file_bytes <= verify_up_to_bytes:
        file.verify_all()
    return file


def read_blockfile(path: Path, kind: str) -> BlockFile:
    """Opens a file and verifies all of it.

    Args:
        kind: what the file must be; another kind is refused.

    Raises:
        CorruptData: naming the file and the offset or array at fault.
    """
    file = map_blockfile(path, kind)
    file.verify_all()
    arrays = {name: array.copy() for name, array in file.arrays.items()}
    return BlockFile(path=path, kind=kind, meta=file.meta, arrays=arrays)
