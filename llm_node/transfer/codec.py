"""A KV snapshot as messages: a header, then slices with checksums.

Slices follow each other in an order that both sides know, so that none needs to
name its place: by layer, keys before values, and by token within them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from llm_node.engine.kv import KvLayout, KvSnapshot
from ragschema.errors import CorruptData, IncompatibleRequest
from ragschema.types import U8
from ragschema.wire import kv_pb2

#: Large enough that a message costs little beside its bytes, small enough that
#: flow control holds back memory and not only messages.
SLICE_BYTES = 1 << 20
_ZLIB_LEVEL = 1
#: A slice that zlib does not make smaller by more than this travels as it is.
_WORTH_IT = 0.9
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class _Place(NamedTuple):
    """Bytes ``start .. stop - 1`` of one of the snapshot's arrays."""

    array: int
    start: int
    stop: int


def to_parts(
    snapshot: KvSnapshot,
    compression: kv_pb2.KvCompression.ValueType = kv_pb2.KV_COMPRESSION_NONE,
    slice_bytes: int = SLICE_BYTES,
) -> Iterator[kv_pb2.KvPart]:
    """The messages of a snapshot; each is made when it is asked for."""
    yield kv_pb2.KvPart(header=_header(snapshot))
    arrays = _arrays(snapshot)
    packs = compression == kv_pb2.KV_COMPRESSION_ZLIB
    for place in _places([a.size for a in arrays], slice_bytes):
        raw = arrays[place.array][place.start : place.stop].tobytes()
        packed = zlib.compress(raw, _ZLIB_LEVEL) if packs else raw
        smaller = len(packed) < _WORTH_IT * len(raw)
        data = packed if smaller else raw
        yield kv_pb2.KvPart(
            slice=kv_pb2.KvSlice(
                data=data,
                crc32=zlib.crc32(data),
                compression=compression if smaller else kv_pb2.KV_COMPRESSION_NONE,
            )
        )


class SnapshotReader:
    """Puts a snapshot together again; nothing is allocated before the header fits.

    Args:
        layout: of this node's cache.
        fingerprint: of this node's model.
        max_tokens: of one request.
    """

    def __init__(
        self, layout: KvLayout, fingerprint: str, max_tokens: int, slice_bytes: int = SLICE_BYTES
    ) -> None:
        self._layout = layout
        self._fingerprint = fingerprint
        self._max_tokens = max_tokens
        self._slice_bytes = slice_bytes
        self._snapshot: KvSnapshot | None = None
        self._arrays: list[U8] = []
        self._places: Iterator[_Place] = iter(())

    def take(self, part: kv_pb2.KvPart) -> None:
        """Takes the next message.

        Raises:
            IncompatibleRequest: the header is another model's.
            CorruptData: a slice is damaged, or not the one that is due.
        """
        if part.WhichOneof("part") == "header":
            if self._snapshot is not None:
                raise _corrupt("has two headers")
            self._snapshot = self._allocate(part.header)
            self._arrays = _arrays(self._snapshot)
            self._places = _places([a.size for a in self._arrays], self._slice_bytes)
            return
        place = next(self._places, None)
        if place is None:
            raise _corrupt("has more slices than its header tells of")
        raw = _unpacked(part.slice, place.stop - place.start)
        self._arrays[place.array][place.start : place.stop] = np.frombuffer(raw, np.uint8)

    def finish(self) -> KvSnapshot:
        """The whole snapshot; raises CorruptData when slices are missing."""
        if self._snapshot is None:
            raise _corrupt("has no header")
        if next(self._places, None) is not None:
            raise _corrupt("ended early")
        return self._snapshot

    def _allocate(self, header: kv_pb2.KvHeader) -> KvSnapshot:
        self._check(header)
        shapes, dtype, tokens = self._layout.layers, self._layout.dtype, header.computed
        return KvSnapshot(
            token_ids=tuple(header.token_ids),
            computed=tokens,
            keys=tuple(torch.empty((tokens, s.kv_heads, s.key_dim), dtype=dtype) for s in shapes),
            values=tuple(
                torch.empty((tokens, s.kv_heads, s.value_dim), dtype=dtype) for s in shapes
            ),
            dtype=dtype,
            fingerprint=header.fingerprint,
        )

    def _check(self, header: kv_pb2.KvHeader) -> None:
        own = [(s.kv_heads, s.key_dim, s.value_dim) for s in self._layout.layers]
        theirs = [(s.kv_heads, s.key_dim, s.value_dim) for s in header.layers]
        problem = None
        if header.fingerprint != self._fingerprint:
            problem = f"comes from model {header.fingerprint}, this is {self._fingerprint}"
        elif header.dtype != _NAMES[self._layout.dtype]:
            problem = f"is {header.dtype}, this cache {_NAMES[self._layout.dtype]}"
        elif own != theirs:
            problem = "has layers of other shapes"
        elif not 0 < header.computed <= len(header.token_ids) <= self._max_tokens:
            problem = f"has {header.computed} of {len(header.token_ids)} tokens"
        if problem is not None:
            raise IncompatibleRequest(
                f"the KV that was sent {problem}",
                field="source",
                hint="prefill and decode nodes must load the same checkpoint in the same dtype",
            )


def _header(snapshot: KvSnapshot) -> kv_pb2.KvHeader:
    return kv_pb2.KvHeader(
        token_ids=snapshot.token_ids,
        computed=snapshot.computed,
        dtype=_NAMES[snapshot.dtype],
        fingerprint=snapshot.fingerprint,
        layers=[
            kv_pb2.KvLayer(kv_heads=k.shape[1], key_dim=k.shape[2], value_dim=v.shape[2])
            for k, v in zip(snapshot.keys, snapshot.values, strict=True)
        ],
    )


def _arrays(snapshot: KvSnapshot) -> list[U8]:
    """Every tensor's bytes as a flat view, in the order they travel."""
    pairs = zip(snapshot.keys, snapshot.values, strict=True)
    return [t.view(torch.uint8).reshape(-1).numpy() for pair in pairs for t in pair]


def _places(sizes: list[int], slice_bytes: int) -> Iterator[_Place]:
    for array, size in enumerate(sizes):
        for start in range(0, size, slice_bytes):
            yield _Place(array, start, min(start + slice_bytes, size))


def _unpacked(part: kv_pb2.KvSlice, size: int) -> bytes:
    if zlib.crc32(part.data) != part.crc32:
        raise _corrupt("has a slice whose checksum is wrong")
    data = part.data
    if part.compression == kv_pb2.KV_COMPRESSION_ZLIB:
        # A bound, as a few bytes may unpack to gigabytes.
        packed = zlib.decompressobj()
        try:
            data = packed.decompress(part.data, size + 1)
        except zlib.error as error:
            raise _corrupt(f"has a slice that cannot be unpacked: {error}") from error
    if len(data) != size:
        raise _corrupt(f"has a slice of {len(data)} bytes where {size} are due")
    return data


def _corrupt(what: str) -> CorruptData:
    return CorruptData(
        f"the KV that was sent {what}", field="source", hint="the prompt can be read again"
    )
