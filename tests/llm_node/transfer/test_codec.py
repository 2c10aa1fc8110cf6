from __future__ import annotations

import random

import pytest
import torch

from llm_node.engine.kv import KvLayout, KvSnapshot, LayerShape
from llm_node.transfer.codec import SnapshotReader, to_parts
from ragschema.errors import CorruptData, IncompatibleRequest
from ragschema.wire import kv_pb2

SHAPES = (LayerShape(2, 8, 8), LayerShape(1, 4, 12))
SLICE = 100  # bytes; divides nothing evenly


def snapshot(dtype: torch.dtype, tokens: int = 9) -> KvSnapshot:
    torch.manual_seed(5)
    return KvSnapshot(
        token_ids=tuple(range(tokens + 1)),
        computed=tokens,
        keys=tuple(torch.randn(tokens, s.kv_heads, s.key_dim).to(dtype) for s in SHAPES),
        values=tuple(torch.zeros(tokens, s.kv_heads, s.value_dim).to(dtype) for s in SHAPES),
        dtype=dtype,
        fingerprint="model-1",
    )


def reader(dtype: torch.dtype = torch.float32, max_tokens: int = 64) -> SnapshotReader:
    return SnapshotReader(KvLayout(SHAPES, dtype), "model-1", max_tokens, SLICE)


def parts(dtype: torch.dtype = torch.float32, **options: int) -> list[kv_pb2.KvPart]:
    made = list(to_parts(snapshot(dtype), options.get("compression", 0), SLICE))  # type: ignore[arg-type]
    return [kv_pb2.KvPart.FromString(part.SerializeToString()) for part in made]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compression", [kv_pb2.KV_COMPRESSION_NONE, kv_pb2.KV_COMPRESSION_ZLIB])
def test_every_bit_arrives(dtype: torch.dtype, compression: int) -> None:
    original, taken = snapshot(dtype), reader(dtype)
    sent = parts(dtype, compression=compression)
    for part in sent:
        taken.take(part)
    back = taken.finish()
    assert back.token_ids == original.token_ids
    assert (back.computed, back.fingerprint, back.dtype) == (9, "model-1", dtype)
    for own, other in zip(original.keys + original.values, back.keys + back.values, strict=True):
        assert torch.equal(own, other)
    packed = {p.slice.compression for p in sent[1:]}
    # Zeros pack well and random bits do not.
    both = {kv_pb2.KV_COMPRESSION_NONE, kv_pb2.KV_COMPRESSION_ZLIB}
    assert packed == (both if compression else {kv_pb2.KV_COMPRESSION_NONE})


@pytest.mark.parametrize("compression", [0, 1])
def test_a_flipped_bit_is_found(compression: int) -> None:
    rng = random.Random(3)
    sent = parts(compression=compression)
    for index in range(1, len(sent)):
        damaged = kv_pb2.KvPart()
        damaged.CopyFrom(sent[index])
        data = bytearray(damaged.slice.data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.slice.data = bytes(data)
        taken = reader()
        for part in sent[:index]:
            taken.take(part)
        with pytest.raises(CorruptData, match="checksum"):
            taken.take(damaged)


def test_missing_doubled_and_foreign_slices_are_found() -> None:
    sent = parts()
    taken = reader()
    for part in sent[:-1]:
        taken.take(part)
    with pytest.raises(CorruptData, match="ended early"):
        taken.finish()
    with pytest.raises(CorruptData, match="no header"):
        reader().finish()
    taken = reader()
    for part in sent:
        taken.take(part)
    with pytest.raises(CorruptData, match="more slices"):
        taken.take(sent[-1])
    with pytest.raises(CorruptData, match="two headers"):
        taken.take(sent[0])
    taken = reader()
    taken.take(sent[0])
    with pytest.raises(CorruptData, match="bytes where 100 are due"):
        taken.take(sent[-1])


def test_a_slice_cannot_unpack_to_more_than_is_due() -> None:
    import zlib

    bomb = zlib.compress(bytes(10 << 20))
    taken = reader()
    taken.take(parts()[0])
    with pytest.raises(CorruptData, match="101 bytes"):
        taken.take(
            kv_pb2.KvPart(
                slice=kv_pb2.KvSlice(
                    data=bomb, crc32=zlib.crc32(bomb), compression=kv_pb2.KV_COMPRESSION_ZLIB
                )
            )
        )


@pytest.mark.parametrize("field", ["fingerprint", "dtype", "layers", "computed", "too many"])
def test_another_models_header_is_refused_before_memory_is_taken(field: str) -> None:
    header = parts()[0].header
    if field == "fingerprint":
        header.fingerprint = "model-2"
    elif field == "dtype":
        header.dtype = "bfloat16"
    elif field == "layers":
        header.layers[0].key_dim = 1 << 30
    elif field == "computed":
        header.computed = 1 << 30
    limit = 5 if field == "too many" else 64
    with pytest.raises(IncompatibleRequest) as caught:
        reader(max_tokens=limit).take(kv_pb2.KvPart(header=header))
    assert caught.value.field == "source"
