"""The protobuf encoding, field by field, over bytes that are not copied.

Only what ragrig's own hot messages need: integers and length-delimited fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from numpy.typing import NDArray

from ragschema.errors import InvalidInput
from ragschema.wire.convert import Span, pack_array

VARINT: Final = 0
BYTES: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_MAX_FIELD: Final = (1 << 29) - 1
_ALIGNMENT_BYTES: Final = 8
_PADDING_FIELD: Final = 4

#: (field number, wire type, value or first byte, one past the last byte)
Field = tuple[int, int, int, int]


def read_fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in bytes ``at`` .. ``end - 1``.

    Raises:
        InvalidInput: a truncated or impossible field.
    """
    while at < end:
        tag, at = read_varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_FIELD:
            raise malformed(f"field number {number}", at)
        if wire == BYTES:
            size, at = read_varint(data, at, end)
            if size > end - at:
                raise malformed(f"{size} bytes announced, {end - at} left", at)
            yield number, wire, at, at + size
            at += size
        elif wire == VARINT:
            value, at = read_varint(data, at, end)
            yield number, wire, value, at
        else:
            size = _FIXED_BYTES.get(wire, 0)
            if not size or size > end - at:
                raise malformed(f"wire type {wire}", at)
            yield number, wire, at, at + size
            at += size


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An integer of up to 64 bits and where it ends."""
    if at < end:
        value = data[at]
        if value < 0x80:
            return value, at + 1
        value &= 0x7F
        for position in range(at + 1, min(at + 10, end)):
            byte = data[position]
            value |= (byte & 0x7F) << 7 * (position - at)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
    raise malformed("an integer without an end", at)


def read_uint32s(data: bytes, field: Field, into: list[int]) -> None:
    """Appends a repeated uint32, packed or not."""
    _, wire, at, end = field
    if wire == VARINT:
        into.append(at & 0xFFFF_FFFF)
        return
    expect(field, BYTES)
    while at < end:
        value, at = read_varint(data, at, end)
        into.append(value & 0xFFFF_FFFF)


def expect(field: Field, wire: int) -> None:
    """Raises InvalidInput when a known field comes with another wire type."""
    if field[1] != wire:
        raise malformed(f"field {field[0]} with wire type {field[1]}", field[2])


def read_text(data: bytes, field: Field) -> str:
    """A string field, which must be UTF-8."""
    expect(field, BYTES)
    try:
        return data[field[2] : field[3]].decode()
    except UnicodeDecodeError as error:
        raise malformed("a text that is not UTF-8", field[2]) from error


def read_span(data: bytes, field: Field) -> Span:
    """A bytes field, in place."""
    expect(field, BYTES)
    return Span(data, field[2], field[3])


def malformed(what: str, at: int) -> InvalidInput:
    return InvalidInput(
        f"the message is not valid protobuf: {what} at byte {at}",
        field="request",
        hint="send the messages of proto/ragschema/wire",
    )


def varint(value: int) -> bytes:
    """A non-negative integer, encoded."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class MessageWriter:
    """Collects the pieces of one message, to be joined once.

    Zero is left out, as proto3 does. Tensor data start at a multiple of 8 bytes
    from the message's start, so that a reader can use them where they lie.
    """

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._size_bytes = 0

    def uint(self, number: int, value: int) -> None:
        if value:
            self._add(varint(number << 3 | VARINT) + varint(value))

    def present_uint(self, number: int, value: int) -> None:
        """For an optional field, whose zero differs from its absence."""
        self._add(varint(number << 3 | VARINT) + varint(value))

    def raw(self, number: int, data: bytes | NDArray[Any]) -> None:
        """A bytes, string or message field; an array must be contiguous."""
        size = len(data) if isinstance(data, bytes) else data.nbytes
        self._add(varint(number << 3 | BYTES) + varint(size))
        self._pieces.append(data)
        self._size_bytes += size

    def tensor(self, number: int, array: NDArray[Any]) -> None:
        """A Tensor field."""
        code, packed = pack_array(array)
        shape = b"".join(map(varint, array.shape))
        head = b"\x08%c\x12%c%b" % (code, len(shape), shape)
        tail = b"\x1a" + varint(packed.nbytes)
        outer = varint(number << 3 | BYTES)
        inner = len(head) + len(tail) + packed.nbytes
        start = outer + varint(inner) + head + tail
        missing = -(self._size_bytes + len(start)) % _ALIGNMENT_BYTES
        # The second choice is for a padding that makes the length itself longer.
        for padding in _PADDINGS[missing] if missing else ():
            start = outer + varint(inner + len(padding)) + head + padding + tail
            if (self._size_bytes + len(start)) % _ALIGNMENT_BYTES == 0:
                break
        self._add(start)
        self._pieces.append(packed)
        self._size_bytes += packed.nbytes

    def message(self) -> bytes:
        return b"".join(self._pieces)

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size_bytes += len(piece)


def _padding(size_bytes: int) -> bytes:
    """A field of that size, tag and length included; at least 2."""
    return bytes((_PADDING_FIELD << 3 | BYTES, size_bytes - 2)) + bytes(size_bytes - 2)


_PADDINGS: Final = tuple(
    (_padding(missing + 8), _padding(missing + 7)) for missing in range(_ALIGNMENT_BYTES)
)
