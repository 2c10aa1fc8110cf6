"""The head of a block file: what is in it, where it lies, and block checksums.

Layout (all integers little-endian)::

    0   8  magic  b"RAGBLK\\x00\\x02"   (last byte: format version)
    8   4  header length H in bytes
    12  4  bytes of a checksummed block, 65536
    16  8  length of the file in bytes
    24  4  number of blocks N
    28  4  crc32 of bytes 0..27, the header and the block table
    32  H  header: JSON {"kind": str, "meta": {...}, "arrays": [
               {"name", "dtype", "shape", "offset", "bytes"}, ...]}, then blanks
    ..  4N block table: crc32 of every block of the rest of the file
    ..     arrays, each at a multiple of 64 bytes, zero padding between

The head is checked whole when a file is opened, and says everything about the
rest: its checksum stands for the file. A file of another version is refused.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData

FORMAT_VERSION = 2
BLOCK_BYTES = 1 << 16
ALIGN_BYTES = 64
_MAGIC = b"RAGBLK\x00"
_PREFIX = struct.Struct("<8sIIQII")
_SEALED_BYTES = _PREFIX.size - 4
_DTYPES = frozenset({"<f4", "<f2", "<i4", "<i8", "|u1", "<u2", "<u4"})
_MAX_HEADER_BYTES = 1 << 20
_MAX_DIMENSIONS = 8

U32 = NDArray[np.uint32]


@dataclass(frozen=True)
class Entry:
    """Where one array lies.

    Attributes:
        dtype: little-endian numpy name.
        offset: of its first byte in the file.
        bytes: its length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def stop(self) -> int:
        return self.offset + self.bytes


@dataclass(frozen=True, eq=False)
class Head:
    """A verified head.

    Attributes:
        entries: arrays in the order they were written.
        first: offset of the first block.
        file_bytes: length of the file.
        crcs: uint32 [blocks], crc32 of each block.
        crc32: of the head; stands for the whole file.
    """

    kind: str
    meta: Mapping[str, Any]
    entries: tuple[Entry, ...]
    first: int
    file_bytes: int
    crcs: U32
    crc32: int


def corrupt(path: Path, what: str) -> CorruptData:
    """The error for a file that is not what was written."""
    return CorruptData(
        f"{path}: {what}",
        field=str(path),
        hint="restore the file from a backup or ingest the collection again",
    )


def entry_of(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> Entry:
    """An array to be placed; its offset is not known yet."""
    text = dtype.newbyteorder("<").str
    assert text in _DTYPES, f"dtype {dtype} cannot be stored"
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    return Entry(name, text, tuple(int(side) for side in shape), 0, size)


def blocks_in(size: int) -> int:
    """Blocks that ``size`` bytes are cut into."""
    return -(-size // BLOCK_BYTES)


def place(kind: str, meta: Mapping[str, Any], entries: Sequence[Entry]) -> Head:
    """The head of a file to be written: offsets fixed, block checksums still zero."""
    sizes = [-(-entry.bytes // ALIGN_BYTES) * ALIGN_BYTES for entry in entries]
    # The last array is not padded.
    data = sum(sizes[:-1]) + entries[-1].bytes if entries else 0
    room = 0
    while True:
        first = _PREFIX.size + room + 4 * blocks_in(data)
        placed = _placed(entries, sizes, first)
        wanted = len(_header(kind, meta, placed))
        pad = -(_PREFIX.size + wanted + 4 * blocks_in(data)) % ALIGN_BYTES
        if room >= wanted and first % ALIGN_BYTES == 0:
            crcs = np.zeros(blocks_in(data), dtype=np.uint32)
            return Head(kind, meta, placed, first, first + data, crcs, 0)
        room = wanted + pad


def _placed(entries: Sequence[Entry], sizes: Sequence[int], first: int) -> tuple[Entry, ...]:
    placed, at = [], first
    for entry, size in zip(entries, sizes, strict=True):
        placed.append(Entry(entry.name, entry.dtype, entry.shape, at, entry.bytes))
        at += size
    return tuple(placed)


def _header(kind: str, meta: Mapping[str, Any], entries: Sequence[Entry]) -> bytes:
    arrays = [
        {"name": e.name, "dtype": e.dtype, "shape": e.shape, "offset": e.offset, "bytes": e.bytes}
        for e in entries
    ]
    body = {"kind": kind, "meta": dict(meta), "arrays": arrays}
    return json.dumps(body, sort_keys=True).encode("ascii")


def encode_head(head: Head) -> bytes:
    """The bytes 0 .. head.first - 1 of the file."""
    room = head.first - _PREFIX.size - 4 * len(head.crcs)
    rest = _header(head.kind, head.meta, head.entries).ljust(room) + _table_bytes(head.crcs)
    sealed = _PREFIX.pack(
        _MAGIC + bytes([FORMAT_VERSION]), room, BLOCK_BYTES, head.file_bytes, len(head.crcs), 0
    )[:_SEALED_BYTES]
    return sealed + struct.pack("<I", zlib.crc32(rest, zlib.crc32(sealed))) + rest


def _table_bytes(crcs: U32) -> bytes:
    return crcs.astype("<u4").tobytes()


def read_head(path: Path) -> Head:
    """Reads and verifies the head of a file, and that the file has its full length.

    Raises:
        CorruptData: naming the file and the offset or array at fault.
    """
    try:
        with path.open("rb") as source:
            return _read_head(path, source)
    except OSError as error:
        raise CorruptData(f"cannot read {path}: {error.strerror}", field=str(path)) from error


def _read_head(path: Path, source: BinaryIO) -> Head:
    size = os.fstat(source.fileno()).st_size
    prefix = source.read(_PREFIX.size)
    _check_magic(path, prefix)
    _, length, block, file_bytes, blocks, crc = _PREFIX.unpack(prefix)
    if file_bytes != size:
        raise corrupt(path, f"has {size} bytes, its head says {file_bytes} (offset 16)")
    first = _PREFIX.size + length + 4 * blocks
    if length > _MAX_HEADER_BYTES or first > size or first % ALIGN_BYTES:
        raise corrupt(path, f"header length {length} does not fit (offset 8)")
    if block != BLOCK_BYTES or blocks != blocks_in(size - first):
        raise corrupt(path, f"{blocks} blocks of {block} bytes do not cover it (offset 12)")
    rest = source.read(length + 4 * blocks)
    if zlib.crc32(rest, zlib.crc32(prefix[:_SEALED_BYTES])) != crc:
        raise corrupt(path, f"header checksum does not match (offset {_SEALED_BYTES})")
    kind, meta, listed = _parse_header(path, rest[:length])
    entries = tuple(_check_entry(path, entry) for entry in listed)
    _check_places(path, entries, first, size)
    table = np.frombuffer(rest, dtype="<u4", offset=length).astype(np.uint32)
    return Head(kind, meta, entries, first, size, table, crc)


def _check_magic(path: Path, prefix: bytes) -> None:
    if len(prefix) >= len(_MAGIC) and not prefix.startswith(_MAGIC):
        raise corrupt(path, "does not start with the block file magic (offset 0)")
    if len(prefix) < len(_MAGIC) + 1:
        raise corrupt(path, f"is {len(prefix)} bytes long, too short for a header")
    version = prefix[len(_MAGIC)]
    if version > FORMAT_VERSION:
        what = f"has format version {version}, this release reads {FORMAT_VERSION} (offset 7)"
        raise CorruptData(f"{path}: {what}", field=str(path), hint="install a newer release")
    if version < FORMAT_VERSION:
        what = f"has format version {version}, which this release no longer reads (offset 7)"
        raise CorruptData(f"{path}: {what}", field=str(path), hint="ingest the collection again")
    if len(prefix) < _PREFIX.size:
        raise corrupt(path, f"is {len(prefix)} bytes long, too short for a header")


def _parse_header(path: Path, text: bytes) -> tuple[str, dict[str, Any], list[object]]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, f"header is not JSON (offset {_PREFIX.size})") from error
    if not isinstance(header, dict):
        raise corrupt(path, "header is not an object")
    kind, meta, listed = header.get("kind"), header.get("meta"), header.get("arrays")
    if not isinstance(kind, str) or not isinstance(meta, dict) or not isinstance(listed, list):
        raise corrupt(path, "its header has no kind, no arrays or no meta")
    return kind, meta, listed


def _check_entry(path: Path, entry: object) -> Entry:
    """A checksum proves that bytes are unchanged, not that they were sane."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise corrupt(path, "an array of its header has no name")
    name, shape, dtype = entry["name"], entry.get("shape"), entry.get("dtype")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise corrupt(path, f"array {name} has no shape of at most {_MAX_DIMENSIONS} dimensions")
    for value in (*shape, entry.get("offset"), entry.get("bytes")):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise corrupt(path, f"array {name} has {value!r} where a count belongs")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise corrupt(path, f"array {name} has unknown dtype {dtype!r}")
    if int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize != entry["bytes"]:
        raise corrupt(path, f"array {name}: shape {shape} does not match {entry['bytes']} bytes")
    return Entry(name, dtype, tuple(shape), entry["offset"], entry["bytes"])


def _check_places(path: Path, entries: Sequence[Entry], first: int, size: int) -> None:
    """Arrays lie in the file, have names of their own and do not overlap."""
    end = first
    for entry in sorted(entries, key=lambda e: (e.offset, e.bytes)):
        if entry.offset % ALIGN_BYTES or entry.stop > size:
            what = f"array {entry.name} at offset {entry.offset} does not fit in the file"
            raise corrupt(path, what)
        if entry.offset < end:
            raise corrupt(path, f"array {entry.name} at offset {entry.offset} overlaps")
        end = entry.stop
    if len({entry.name for entry in entries}) != len(entries):
        raise corrupt(path, "two arrays have the same name")
