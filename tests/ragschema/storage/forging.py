"""Block files with changed heads whose checksums are right for them."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

PREFIX = struct.Struct("<8sIIQII")


def header_of(raw: bytes) -> dict[str, Any]:
    """The header of a block file."""
    length = PREFIX.unpack(raw[: PREFIX.size])[1]
    header: dict[str, Any] = json.loads(raw[PREFIX.size : PREFIX.size + length])
    return header


def table_span(raw: bytes) -> tuple[int, int]:
    """Where the block table lies."""
    _, length, _, _, blocks, _ = PREFIX.unpack(raw[: PREFIX.size])
    return PREFIX.size + length, PREFIX.size + length + 4 * blocks


def forged(raw: bytes, header: bytes) -> bytes:
    """The file with another header, and a head checksum that is right for it."""
    magic, length, block, _, blocks, _ = PREFIX.unpack(raw[: PREFIX.size])
    start, stop = table_span(raw)
    room = length if len(header) <= length else len(header) + -(len(header) - length) % 64
    rest = header.ljust(room) + raw[start:stop]
    size = PREFIX.size + len(rest) + len(raw) - stop
    sealed = PREFIX.pack(magic, room, block, size, blocks, 0)[:-4]
    return sealed + struct.pack("<I", zlib.crc32(sealed + rest)) + rest + raw[stop:]


def resealed(raw: bytes) -> bytes:
    """The file after its head was changed in place, with a right head checksum."""
    _, stop = table_span(raw)
    sealed, rest = raw[: PREFIX.size - 4], raw[PREFIX.size : stop]
    return sealed + struct.pack("<I", zlib.crc32(sealed + rest)) + raw[PREFIX.size :]


def with_right_blocks(raw: bytes) -> bytes:
    """The file after its data was changed, every checksum right: a forgery."""
    start, stop = table_span(raw)
    block = PREFIX.unpack(raw[: PREFIX.size])[2]
    crcs = [zlib.crc32(raw[at : at + block]) for at in range(stop, len(raw), block)]
    return resealed(raw[:start] + struct.pack(f"<{len(crcs)}I", *crcs) + raw[stop:])
