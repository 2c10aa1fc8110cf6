"""Block files: what was written comes back, and nothing else is believed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ragschema.errors import CorruptData
from ragschema.storage.blockfile import read_blockfile, write_blockfile
from tests.ragschema.storage.forging import forged, header_of, resealed, with_right_blocks

DTYPES = ["<f4", "<f2", "<i4", "<i8", "|u1", "<u2", "<u4"]

Arrays = dict[str, NDArray[Any]]
arrays_of = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=8),
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0))
    ),
    max_size=4,
)


def same(a: Arrays, b: Any) -> bool:
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@pytest.fixture(scope="module")
def sample(folder: Path) -> tuple[bytes, Arrays]:
    rng = np.random.default_rng(7)
    arrays: Arrays = {
        "ids": np.arange(5, dtype=np.int64),
        "codes": rng.integers(0, 255, (5, 3), dtype=np.uint8),
        "vectors": rng.standard_normal((5, 4)).astype(np.float16),
    }
    write_blockfile(folder / "sample.rag", "shard", {"metric": "l2"}, arrays)
    return (folder / "sample.rag").read_bytes(), arrays


@given(arrays=arrays_of, meta=st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
def test_round_trip(folder: Path, arrays: Arrays, meta: dict[str, int]) -> None:
    path = folder / "round.rag"
    write_blockfile(path, "anything", meta, arrays)
    back = read_blockfile(path, "anything")
    assert same(arrays, back.arrays)
    assert (back.kind, back.meta) == ("anything", meta)


def test_big_endian_and_strided_arrays_are_stored_little_endian(tmp_path: Path) -> None:
    big = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    write_blockfile(tmp_path / "x", "k", {}, {"a": big})
    back = read_blockfile(tmp_path / "x", "k").arrays["a"]
    assert back.dtype.str == "<f4"
    np.testing.assert_array_equal(back, big)


def test_arrays_are_aligned(sample: tuple[bytes, Arrays]) -> None:
    header = header_of(sample[0])
    assert [a["offset"] % 64 for a in header["arrays"]] == [0, 0, 0]


@settings(max_examples=400)
@given(st.data())
def test_a_flipped_byte_is_refused(
    folder: Path, sample: tuple[bytes, Arrays], data: st.DataObject
) -> None:
    raw, _ = sample
    at = data.draw(st.integers(0, len(raw) - 1), label="offset")
    mask = data.draw(st.integers(1, 255), label="mask")
    path = folder / "flipped.rag"
    path.write_bytes(raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :])
    with pytest.raises(CorruptData) as caught:
        read_blockfile(path, "shard")
    assert str(path) in caught.value.message
    assert caught.value.field == str(path)


def test_every_byte_is_guarded(folder: Path, sample: tuple[bytes, Arrays]) -> None:
    """Exhaustive where the property above samples: one bit in every byte."""
    raw, _ = sample
    path = folder / "every.rag"
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        with pytest.raises(CorruptData, match=r"every\.rag"):
            read_blockfile(path, "shard")


def test_a_file_cut_anywhere_is_refused(folder: Path, sample: tuple[bytes, Arrays]) -> None:
    raw, _ = sample
    path = folder / "cut.rag"
    borders = {0, 7, 8, 12, 15, 16, 24, 28, 32}
    for entry in header_of(raw)["arrays"]:
        borders |= {entry["offset"], entry["offset"] + entry["bytes"]}
    near = {b + d for b in borders for d in (-1, 0, 1)}
    for size in sorted(s for s in near if 0 <= s < len(raw)):
        path.write_bytes(raw[:size])
        with pytest.raises(CorruptData, match=r"cut\.rag"):
            read_blockfile(path, "shard")


def test_another_kind_is_refused(folder: Path, sample: tuple[bytes, Arrays]) -> None:
    with pytest.raises(CorruptData, match="expected 'ivfpq-index'"):
        read_blockfile(folder / "sample.rag", "ivfpq-index")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.rag", tmp_path):
        with pytest.raises(CorruptData) as caught:
            read_blockfile(path, "shard")
        assert str(path) in caught.value.message


def test_a_newer_version_is_refused_by_name(folder: Path, sample: tuple[bytes, Arrays]) -> None:
    raw, _ = sample
    (folder / "newer.rag").write_bytes(raw[:7] + b"\x03" + raw[8:])
    with pytest.raises(CorruptData, match=r"format version 3.*offset 7") as caught:
        read_blockfile(folder / "newer.rag", "shard")
    assert "newer release" in (caught.value.hint or "")


def test_the_first_version_is_refused_with_what_to_do(folder: Path) -> None:
    header = b'{"arrays": [], "kind": "shard", "meta": {}}'
    old = struct.pack("<8sII", b"RAGBLK\x00\x01", len(header), zlib.crc32(header)) + header
    (folder / "older.rag").write_bytes(old)
    with pytest.raises(CorruptData, match="format version 1") as caught:
        read_blockfile(folder / "older.rag", "shard")
    assert "ingest" in (caught.value.hint or "")


@pytest.mark.parametrize("length", [1 << 20, (1 << 32) - 1, 100_000])
def test_a_huge_header_length_is_refused(
    folder: Path, sample: tuple[bytes, Arrays], length: int
) -> None:
    raw, _ = sample
    (folder / "huge.rag").write_bytes(raw[:8] + struct.pack("<I", length) + raw[12:])
    with pytest.raises(CorruptData, match="header length"):
        read_blockfile(folder / "huge.rag", "shard")


def test_the_forger_of_these_tests_is_able(folder: Path, sample: tuple[bytes, Arrays]) -> None:
    raw, arrays = sample
    assert forged(raw, json.dumps(header_of(raw), sort_keys=True).encode()) == raw
    assert resealed(raw) == with_right_blocks(raw) == raw
    (folder / "able.rag").write_bytes(raw)
    assert same(arrays, read_blockfile(folder / "able.rag", "shard").arrays)


def entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["arrays"][0].update(changes)


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["arrays"][0].pop(key)


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "negative offset": entry(offset=-64),
    "odd offset": entry(offset=3),
    "offset past the end": entry(offset=1 << 40),
    "offset in the header": entry(offset=0),
    "offset is text": entry(offset="64"),
    "offset is a float": entry(offset=64.0),
    "offset is true": entry(offset=True),
    "offset is null": entry(offset=None),
    "negative size": entry(bytes=-40),
    "size past the end": entry(bytes=1 << 62),
    "size beyond int64": entry(bytes=1 << 80),
    "negative shape": entry(shape=[-5]),
    "two negative sides": entry(shape=[-5, -1]),
    "shape too small": entry(shape=[4]),
    "shape beyond int64": entry(shape=[1 << 70]),
    "shape is a number": entry(shape=5),
    "shape of text": entry(shape=["5"]),
    "shape of many sides": entry(shape=[1] * 70 + [5]),
    "empty of absurd sides": entry(shape=[0, 1 << 62, 1 << 62], bytes=0),
    "object dtype": entry(dtype="|O"),
    "unknown dtype": entry(dtype="<f8"),
    "dtype is a list": entry(dtype=["<f4"]),
    "no dtype": drop("dtype"),
    "no name": drop("name"),
    "no shape": drop("shape"),
    "no offset": drop("offset"),
    "no bytes": drop("bytes"),
    "name is a number": entry(name=7),
    "entry is null": lambda h: h["arrays"].insert(0, None),
    "arrays is an object": lambda h: h.update(arrays={}),
    "meta is a list": lambda h: h.update(meta=[]),
    "no meta": lambda h: h.pop("meta"),
    "no kind": lambda h: h.pop("kind"),
    "same name twice": lambda h: h["arrays"].append(h["arrays"][0]),
    "overlap": lambda h: h["arrays"].append({**h["arrays"][0], "name": "again"}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_header_is_refused(folder: Path, sample: tuple[bytes, Arrays], name: str) -> None:
    raw, _ = sample
    header = header_of(raw)
    FORGERIES[name](header)
    path = folder / "forged.rag"
    path.write_bytes(forged(raw, json.dumps(header).encode()))
    with pytest.raises(CorruptData, match=r"forged\.rag"):
        read_blockfile(path, "shard")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["empty", "open", "binary", "list", "null", "number", "deep", "long number"],
)
def test_a_header_that_is_no_object_is_refused(
    folder: Path, sample: tuple[bytes, Arrays], header: bytes
) -> None:
    path = folder / "nojson.rag"
    path.write_bytes(forged(sample[0], header))
    with pytest.raises(CorruptData, match=r"nojson\.rag"):
        read_blockfile(path, "shard")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=5), t, max_size=3),
    max_leaves=6,
)


@given(
    key=st.sampled_from(["name", "dtype", "shape", "offset", "bytes"]),
    value=JSON,
    which=st.integers(0, 2),
)
def test_any_forged_value_gives_arrays_or_corrupt_data(
    folder: Path, sample: tuple[bytes, Arrays], key: str, value: Any, which: int
) -> None:
    header = header_of(sample[0])
    header["arrays"][which][key] = value
    path = folder / "any.rag"
    path.write_bytes(forged(sample[0], json.dumps(header).encode()))
    try:
        read_blockfile(path, "shard")
    except CorruptData as error:
        assert str(path) in error.message


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(folder: Path, raw: bytes) -> None:
    (folder / "noise.rag").write_bytes(raw)
    with pytest.raises(CorruptData):
        read_blockfile(folder / "noise.rag", "shard")
