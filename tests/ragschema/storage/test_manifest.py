"""The manifest: atomic, digested, and never believed beyond its folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema.errors import CorruptData, InvalidInput, NotFound
from ragschema.storage import manifest as m
from ragschema.storage.blockfile import write_blockfile
from ragschema.types import Metric

REF = m.FileRef("segments/seg-000001/shard-0.rag", 128, 7)
MANIFEST = m.Manifest(
    format=2,
    collection="docs",
    generation=3,
    created_at="2026-01-01T00:00:00Z",
    metric=Metric.COSINE,
    dim=384,
    num_shards=1,
    embedder=m.EmbedderRef("minilm", "abc"),
    chunking=m.ChunkingConfig(),
    index=m.IndexRef(m.FileRef("index/idx-000001.rag", 9, 9), 16, 48, 4, 8),
    segments=(m.SegmentRef("seg-000001", 0, 10, (REF,), replace(REF, path="t.sqlite")),),
    tombstones=None,
    next_row_id=10,
    live_rows=10,
    live_documents=2,
)


def test_round_trip(tmp_path: Path) -> None:
    m.commit_manifest(tmp_path, MANIFEST)
    assert m.read_manifest(tmp_path) == MANIFEST


def test_nothing_but_the_manifest_remains(tmp_path: Path) -> None:
    m.commit_manifest(tmp_path, MANIFEST)
    assert os.listdir(tmp_path) == [m.MANIFEST_NAME]


def test_a_crash_before_the_rename_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m.commit_manifest(tmp_path, MANIFEST)
    before = (tmp_path / m.MANIFEST_NAME).read_bytes()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, crash)
            with pytest.raises(KeyboardInterrupt):
                m.commit_manifest(tmp_path, replace(MANIFEST, generation=4))
        assert (tmp_path / m.MANIFEST_NAME).read_bytes() == before
        assert m.read_manifest(tmp_path).generation == 3


def test_content_is_synced_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note(what: str, call: Callable[..., None]) -> Callable[..., None]:
        def noted(*args: Any) -> None:
            order.append(what)
            call(*args)

        return noted

    monkeypatch.setattr(os, "fsync", note("sync", fsync))
    monkeypatch.setattr(os, "replace", note("rename", rename))
    m.commit_manifest(tmp_path, MANIFEST)
    assert order == ["sync", "rename", "sync"]


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    m.commit_manifest(tmp_path, MANIFEST)
    path = tmp_path / m.MANIFEST_NAME
    raw = path.read_bytes()
    accepted = []
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            assert m.read_manifest(tmp_path) == MANIFEST
            accepted.append(raw[at : at + 1])
        except CorruptData as error:
            assert str(path) in error.message
    assert set(accepted) <= {b" ", b"\n"}  # layout between values is no content


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    m.commit_manifest(tmp_path, MANIFEST)
    path = tmp_path / m.MANIFEST_NAME
    raw = path.read_bytes().rstrip()
    for size in range(0, len(raw), 7):
        path.write_bytes(raw[:size])
        with pytest.raises(CorruptData):
            m.read_manifest(tmp_path)


def forge(folder: Path, body: Any) -> Path:
    """Writes any body with a right digest."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    path = folder / m.MANIFEST_NAME
    path.write_text(json.dumps({"digest": digest, "manifest": body}))
    return path


def good_body(folder: Path) -> dict[str, Any]:
    m.commit_manifest(folder, MANIFEST)
    body: dict[str, Any] = json.loads((folder / m.MANIFEST_NAME).read_text())["manifest"]
    return body


def test_the_forger_of_these_tests_is_able(tmp_path: Path) -> None:
    forge(tmp_path, good_body(tmp_path))
    assert m.read_manifest(tmp_path) == MANIFEST


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    body = good_body(tmp_path) | {"format": 3, "something": "new"}
    path = forge(tmp_path, body)
    with pytest.raises(CorruptData, match="newer release") as caught:
        m.read_manifest(tmp_path)
    assert caught.value.field == str(path)


def test_the_first_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = forge(tmp_path, good_body(tmp_path) | {"format": 1})
    with pytest.raises(CorruptData, match="older release") as caught:
        m.read_manifest(tmp_path)
    assert caught.value.field == str(path)
    assert "ingest" in (caught.value.hint or "")


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown key": lambda b: b.update(extra=1),
    "missing key": lambda b: b.pop("dim"),
    "negative count": lambda b: b.update(live_rows=-1),
    "count as text": lambda b: b.update(live_rows="10"),
    "dim zero": lambda b: b.update(dim=0),
    "dim huge": lambda b: b.update(dim=1 << 40),
    "unknown metric": lambda b: b.update(metric="hamming"),
    "segment id": lambda b: b["segments"][0].update(id="../x"),
    "path with a space": lambda b: b["segments"][0]["texts"].update(path="a b"),
    "nlist zero": lambda b: b["index"].update(nlist=0),
    "format absent": lambda b: b.pop("format"),
    "format text": lambda b: b.update(format="2"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_body_with_a_right_digest_is_refused(tmp_path: Path, name: str) -> None:
    body = good_body(tmp_path)
    FORGERIES[name](body)
    path = forge(tmp_path, body)
    with pytest.raises(CorruptData) as caught:
        m.read_manifest(tmp_path)
    assert caught.value.field == str(path)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe", b'{"digest": 1, "manifest": []}',
     b'{"digest": 1, "manifest": null}', b'{"a":' * 100_000, b"[" * 100_000, b"9" * 5000],
    ids=["empty", "object", "list", "null", "number", "binary", "list body", "null body",
         "deep objects", "deep lists", "long number"],
)  # fmt: skip
def test_bytes_that_are_no_manifest_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / m.MANIFEST_NAME).write_bytes(raw)
    with pytest.raises(CorruptData, match=r"manifest\.json"):
        m.read_manifest(tmp_path)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "noise"
    folder.mkdir(exist_ok=True)
    (folder / m.MANIFEST_NAME).write_bytes(raw)
    with pytest.raises(CorruptData):
        m.read_manifest(folder)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / m.MANIFEST_NAME).mkdir()
    with pytest.raises(CorruptData):
        m.read_manifest(tmp_path)


def test_absence_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(NotFound) as caught:
            m.read_manifest(folder)
        assert caught.value.hint


def test_a_file_ref_finds_its_file(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "a.sqlite").write_bytes(b"abc")
    ref = m.file_ref(tmp_path, tmp_path / "index" / "a.sqlite")
    assert (ref.path, ref.bytes) == ("index/a.sqlite", 3)
    assert m.verify_file(tmp_path, ref) == (tmp_path / "index" / "a.sqlite").resolve()


@pytest.mark.parametrize("content", [b"ab", b"abcd", b"abd"])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"abc")
    ref = m.file_ref(tmp_path, tmp_path / "a.sqlite")
    (tmp_path / "a.sqlite").write_bytes(content)
    with pytest.raises(CorruptData, match=r"a\.sqlite"):
        m.verify_file(tmp_path, ref)


def test_a_block_file_is_known_by_its_head(tmp_path: Path) -> None:
    path = tmp_path / "a.rag"
    write_blockfile(path, "shard", {}, {"codes": np.arange(99_999, dtype=np.int64)})
    ref = m.file_ref(tmp_path, path)
    raw = path.read_bytes()
    assert ref.bytes == len(raw)
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert m.verify_file(tmp_path, ref) == path.resolve()  # data is verified where it is read
    for broken in (raw[:-1], raw + b"x", b"", raw[:40] + b"x" + raw[41:]):
        path.write_bytes(broken)
        with pytest.raises(CorruptData, match=r"a\.rag"):
            m.verify_file(tmp_path, ref)
    write_blockfile(path, "shard", {}, {"codes": np.arange(1, 100_000, dtype=np.int64)})
    with pytest.raises(CorruptData, match=r"a\.rag: checksum"):
        m.verify_file(tmp_path, ref)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match=r"gone\.sqlite"):
        m.verify_file(tmp_path, m.FileRef("gone.sqlite", 0, 0))


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/hostname", "..", "."])
def test_a_path_out_of_the_collection_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    inner = tmp_path / "collection"
    inner.mkdir()
    with pytest.raises(CorruptData):
        m.verify_file(inner, replace(m.file_ref(tmp_path, tmp_path / "secret"), path=path))


def test_a_link_out_of_the_collection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    inner = tmp_path / "collection"
    inner.mkdir()
    (inner / "link").symlink_to(tmp_path / "secret")
    ref = replace(m.file_ref(tmp_path, tmp_path / "secret"), path="link")
    with pytest.raises(CorruptData, match="leaves"):
        m.verify_file(inner, ref)


@pytest.mark.parametrize("name", ["docs", "a", "0-a_b", "x" * 63])
def test_collection_names(name: str) -> None:
    assert m.collection_dir(Path("/d"), name) == Path("/d/collections") / name


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "A", "-a", "_a", "x" * 64, "docs\n", "a b", "ä", "a\x00", "a."]
)
def test_names_that_could_be_paths_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        m.check_collection_name(name)
    assert caught.value.field == "collection"
    assert caught.value.hint
