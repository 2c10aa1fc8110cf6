"""Snapshots: reads, integrity of every file, life beyond the files' names."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.types import FilterTerm
from ragschema.errors import CorruptData, NotFound
from tests.coordinator.collections.making import Doc, add_segment, make_collection

DOCS = (
    Doc("b.md", ("b0", "b1", "b2"), {"year": 2020, "kind": "x"}),
    Doc("a.md", ("a0",), {"year": 2021}),
)


def test_chunks_come_in_the_order_asked_for(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    add_segment(store.directory("c"), [Doc("c.md", ("c0", "c1"))])
    snapshot = Snapshot.open(store.directory("c"))
    for _ in range(2):  # from the file, then from the cache
        found = snapshot.chunks([5, 0, 99, 3, -1, 0])
        assert [c.text if c else None for c in found] == ["c1", "b0", None, "a0", None, "b0"]
    chunk = snapshot.chunks([3])[0]
    assert chunk is not None
    assert (chunk.document_id, chunk.title, chunk.headings) == ("a.md", "Title of a.md", ("A", "B"))
    assert (chunk.row_id, chunk.chunk_id, chunk.metadata) == (3, "id-3", {"year": 2021})
    snapshot.close()


def test_documents_are_listed_in_order_over_segments(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    add_segment(store.directory("c"), [Doc("aa.md", ("t",)), Doc("z.md", ("t",))])
    snapshot = Snapshot.open(store.directory("c"))
    assert [d.document_id for d in snapshot.documents(0, 10)] == ["a.md", "aa.md", "b.md", "z.md"]
    assert [d.document_id for d in snapshot.documents(1, 2)] == ["aa.md", "b.md"]
    assert snapshot.document("b.md").chunks == 3
    with pytest.raises(NotFound, match=r"nope\.md"):
        snapshot.document("nope.md")
    snapshot.close()


def test_a_deleted_document_never_comes_back(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    before = Snapshot.open(store.directory("c"))
    store.delete_documents("c", ["b.md"])
    after = Snapshot.open(store.directory("c"))
    assert [c is not None for c in before.chunks(range(4))] == [True] * 4
    assert [c is not None for c in after.chunks(range(4))] == [False, False, False, True]
    assert [d.document_id for d in after.documents(0, 9)] == ["a.md"]
    with pytest.raises(NotFound):
        after.document("b.md")
    assert not after.filter_bitmap((FilterTerm("document", "in", ("b.md",)),)).any()
    before.close()
    after.close()


def test_reads_go_on_after_the_collection_is_dropped(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    snapshot = Snapshot.open(store.directory("c"))
    store.drop("c")
    assert not store.directory("c").exists()
    assert snapshot.chunks([1])[0].text == "b1"  # type: ignore[union-attr]
    assert len(snapshot.documents(0, 9)) == 2
    snapshot.close()


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    docs = [Doc(f"d{i}", [f"{i}-{j}" for j in range(5)]) for i in range(200)]
    store = make_collection(tmp_path, "c", docs)
    snapshot = Snapshot.open(store.directory("c"))

    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 1000, 50).tolist()
        texts = [c.text for c in snapshot.chunks(rows) if c]
        return texts == [f"{r // 5}-{r % 5}" for r in rows] and len(snapshot.documents(0, 7)) == 7

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(64)))
    snapshot.close()


def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS, with_index=True)
    store.delete_documents("c", ["a.md"])
    directory = store.directory("c")
    Snapshot.open(directory).close()
    rng = np.random.default_rng(7)
    print("seed 7")
    kinds = set()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        kinds.add(path.name.split("-")[0])
        raw = path.read_bytes()
        places = {0, len(raw) - 1, *rng.integers(0, len(raw), 12).tolist()}
        for place in places:
            broken = bytearray(raw)
            broken[place] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(broken)
            with pytest.raises(CorruptData) as caught:
                Snapshot.open(directory)
            assert str(path) in caught.value.message, (path, place)
        path.write_bytes(raw)
    assert kinds == {"manifest.json", "texts.sqlite", "shard", "idx", "tomb"}
    Snapshot.open(directory).close()


@pytest.mark.parametrize("damage", ["missing", "short", "long", "empty"])
def test_missing_and_resized_files_are_named(tmp_path: Path, damage: str) -> None:
    store = make_collection(tmp_path, "c", DOCS, with_index=True)
    store.delete_documents("c", ["a.md"])
    directory = store.directory("c")
    for path in [p for p in directory.rglob("*") if p.is_file() and p.name != "manifest.json"]:
        raw = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"short": raw[:-1], "long": raw + b"\0", "empty": b""}[damage])
        with pytest.raises(CorruptData) as caught:
            Snapshot.open(directory)
        assert str(path) in caught.value.message
        path.write_bytes(raw)


def test_a_segment_whose_files_are_swapped_is_refused(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    directory = store.directory("c")
    add_segment(directory, [Doc("z", ("z",))])
    first, second = sorted((directory / "segments").iterdir())
    shutil.copy(first / "texts.sqlite", second / "texts.sqlite")
    with pytest.raises(CorruptData, match=second.name):
        Snapshot.open(directory)


def test_no_collection_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Snapshot.open(tmp_path / "nothing")
