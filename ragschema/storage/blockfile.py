"""A file of named, checksummed arrays.

Layout (all integers little-endian)::

    0   8  magic  b"RAGBLK\\x00\\x01"   (last byte: format version)
    8   4  header length H in bytes
    12  4  crc32 of the header
    16  H  header: JSON {"kind": str, "meta": {...}, "arrays": [
               {"name", "dtype", "shape", "offset", "bytes", "crc32"}, ...]}
    ..     arrays, each at a multiple of 64 bytes, zero padding between

Nothing is trusted before it is verified: sizes are checked against the file,
checksums against the bytes. A file of a newer version is refused by name.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import CorruptData

_MAGIC = b"RAGBLK\x00"
FORMAT_VERSION = 1
_ALIGN = 64
_PREFIX = struct.Struct("<8sII")
_DTYPES = frozenset({"<f4", "<f2", "<i4", "<i8", "|u1", "<u2"})
_MAX_HEADER_BYTES = 1 << 20
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class BlockFile:
    """An opened and verified file."""

    path: Path
    kind: str
    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def write_blockfile(
    path: Path, kind: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Writes and fsyncs the file. The caller makes it visible (rename, manifest)."""
    plain = {name: _little_endian(array) for name, array in arrays.items()}
    entries = [_entry(name, array) for name, array in plain.items()]
    header = _placed_header(kind, meta, entries)
    with path.open("wb") as out:
        out.write(_PREFIX.pack(_MAGIC + bytes([FORMAT_VERSION]), len(header), zlib.crc32(header)))
        out.write(header)
        for entry in entries:
            out.write(b"\0" * (entry["offset"] - out.tell()))
            out.write(plain[entry["name"]].data)
        out.flush()
        os.fsync(out.fileno())


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _entry(name: str, array: NDArray[Any]) -> dict[str, Any]:
    assert array.dtype.str in _DTYPES, f"dtype {array.dtype} cannot be stored"
    return {
        "name": name,
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "offset": 0,
        "bytes": array.nbytes,
        "crc32": zlib.crc32(array.data),
    }


def _placed_header(kind: str, meta: Mapping[str, Any], entries: list[dict[str, Any]]) -> bytes:
    """Fixes offsets; they change the header's length, so repeat until stable."""
    header = b""
    while True:
        position = _PREFIX.size + len(header)
        for entry in entries:
            position = -(-position // _ALIGN) * _ALIGN
            entry["offset"] = position
            position += entry["bytes"]
        text = json.dumps({"kind": kind, "meta": dict(meta), "arrays": entries}, sort_keys=True)
        if len(text) == len(header):
            return text.encode("ascii")
        header = text.encode("ascii")


def read_blockfile(path: Path, kind: str) -> BlockFile:
    """Opens a file and verifies all of it.

    Args:
        kind: what the file must be; another kind is refused.

    Raises:
        CorruptData: naming the file and the offset or array at fault.
    """
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise CorruptData(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    header = _read_header(path, raw)
    if header.get("kind") != kind:
        raise _corrupt(path, f"holds {header.get('kind')!r}, expected {kind!r}")
    listed = header.get("arrays")
    if not isinstance(listed, list) or not isinstance(header.get("meta"), dict):
        raise _corrupt(path, "its header has no arrays or no meta")
    entries = [_check_entry(path, entry) for entry in listed]
    _check_layout(path, entries, _header_end(raw))
    arrays = dict(_read_array(path, raw, entry) for entry in entries)
    return BlockFile(path=path, kind=kind, meta=header["meta"], arrays=arrays)


def _corrupt(path: Path, what: str) -> CorruptData:
    return CorruptData(
        f"{path}: {what}",
        field=str(path),
        hint="restore the file from a backup or ingest the collection again",
    )


def _header_end(raw: NDArray[np.uint8]) -> int:
    return _PREFIX.size + int(_PREFIX.unpack(raw[: _PREFIX.size].tobytes())[1])


def _read_header(path: Path, raw: NDArray[np.uint8]) -> dict[str, Any]:
    if len(raw) < _PREFIX.size:
        raise _corrupt(path, f"is {len(raw)} bytes long, too short for a header")
    magic, length, crc = _PREFIX.unpack(raw[: _PREFIX.size].tobytes())
    if magic[:7] != _MAGIC:
        raise _corrupt(path, "does not start with the block file magic (offset 0)")
    if magic[7] != FORMAT_VERSION:
        raise _corrupt(path, f"has format version {magic[7]}, this release reads {FORMAT_VERSION}")
    if length > _MAX_HEADER_BYTES or _PREFIX.size + length > len(raw):
        raise _corrupt(path, f"header length {length} does not fit (offset 8)")
    text = raw[_PREFIX.size : _PREFIX.size + length].tobytes()
    if zlib.crc32(text) != crc:
        raise _corrupt(path, f"header checksum does not match (offset {_PREFIX.size})")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"header is not JSON (offset {_PREFIX.size})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "header is not an object")
    return header


def _check_entry(path: Path, entry: object) -> dict[str, Any]:
    """A checksum proves that bytes are unchanged, not that they were sane."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _corrupt(path, "an array of its header has no name")
    name = entry["name"]
    shape = entry.get("shape")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise _corrupt(path, f"array {name} has no shape of at most {_MAX_DIMENSIONS} dimensions")
    for value in (*shape, entry.get("offset"), entry.get("bytes"), entry.get("crc32")):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise _corrupt(path, f"array {name} has {value!r} where a count belongs")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _corrupt(path, f"array {name} has unknown dtype {dtype!r}")
    return entry


def _check_layout(path: Path, entries: list[dict[str, Any]], header_end: int) -> None:
    """Arrays have names of their own and do not overlap."""
    end = header_end
    for entry in sorted(entries, key=lambda e: (e["offset"], e["bytes"])):
        if entry["offset"] < end:
            raise _corrupt(path, f"array {entry['name']} at offset {entry['offset']} overlaps")
        end = entry["offset"] + entry["bytes"]
    if len({entry["name"] for entry in entries}) != len(entries):
        raise _corrupt(path, "two arrays have the same name")


def _read_array(
    path: Path, raw: NDArray[np.uint8], entry: dict[str, Any]
) -> tuple[str, NDArray[Any]]:
    name, dtype, shape = entry["name"], entry["dtype"], tuple(entry["shape"])
    start, size = entry["offset"], entry["bytes"]
    if start % _ALIGN or start + size > len(raw):
        raise _corrupt(path, f"array {name} at offset {start} does not fit in the file")
    if int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize != size:
        raise _corrupt(path, f"array {name}: shape {list(shape)} does not match {size} bytes")
    body = raw[start : start + size]
    if size and zlib.crc32(body.data) != entry["crc32"]:
        raise _corrupt(path, f"checksum of array {name} at offset {start} does not match")
    try:
        return name, body.view(dtype).reshape(shape)
    except ValueError as error:  # a side of 0 beside others too large for any array
        raise _corrupt(path, f"array {name}: shape {list(shape)} is too large") from error
