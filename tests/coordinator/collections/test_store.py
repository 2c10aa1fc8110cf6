"""The store: create, drop, delete, one writer, and what is left on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import CollectionStore
from coordinator.types import FilterTerm
from ragschema.errors import Conflict, CorruptData, InvalidInput, NotFound
from ragschema.storage.manifest import read_manifest
from tests.coordinator.collections.making import SPEC, Doc, add_segment, make_collection

DOCS = [Doc(f"d{i}", (f"text {i}", "more")) for i in range(6)]


def files_below(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def test_create_list_and_drop(tmp_path: Path) -> None:
    store = CollectionStore(tmp_path)
    assert store.names() == []
    assert store.generation("one") is None
    manifest = store.create("one", SPEC)
    store.create("two", SPEC)
    assert (manifest.generation, manifest.live_rows) == (1, 0)
    assert store.names() == ["one", "two"]
    assert store.generation("one") == 1
    assert Snapshot.open(store.directory("one")).documents(0, 5) == []
    with pytest.raises(Conflict, match="'one' exists"):
        store.create("one", SPEC)
    store.drop("one")
    assert store.names() == ["two"]
    assert store.generation("one") is None
    with pytest.raises(NotFound, match="'one'"):
        store.drop("one")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "-a", "a" * 64, "a\0b"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    store = CollectionStore(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        store.create(name, SPEC)
    assert caught.value.field == "collection"


def test_a_snapshot_id_is_never_used_twice(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    last = store.generation("c")
    assert last is not None
    store.drop("c")
    assert store.create("c", SPEC).generation == last + 1


def test_deleting_is_all_or_nothing(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    before = store.generation("c")
    with pytest.raises(NotFound, match="'ghost'"):
        store.delete_documents("c", ["d1", "ghost", "d2"])
    assert store.generation("c") == before
    manifest = store.delete_documents("c", ["d1", "d3", "d1"])
    assert (manifest.live_rows, manifest.live_documents) == (8, 4)
    assert manifest.generation == store.generation("c") == (before or 0) + 1
    with pytest.raises(NotFound, match="'d1'"):
        store.delete_documents("c", ["d1"])
    store.delete_documents("c", ["d0", "d2", "d4", "d5"])
    snapshot = Snapshot.open(store.directory("c"))
    assert snapshot.manifest.live_rows == 0
    assert not snapshot.filter_bitmap(()).any()
    with pytest.raises(NotFound):
        store.delete_documents("nothing", ["d0"])


def test_no_ids_change_nothing(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    assert store.delete_documents("c", []).generation == store.generation("c")


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    code = (
        "import sys, pathlib; from coordinator.collections.lock import WriterLock;"
        "lock = WriterLock(pathlib.Path(sys.argv[1]), 'c').__enter__();"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for change in (
            lambda: store.delete_documents("c", ["d1"]),
            lambda: store.drop("c"),
            lambda: store.create("c", SPEC),
        ):
            with pytest.raises(Conflict, match=str(holder.pid)):
                change()
        holder.kill()
    # The kernel lets go of a dead writer's lock.
    store.delete_documents("c", ["d1"])


def test_two_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    with store.lock("c"), pytest.raises(Conflict, match=str(os.getpid())):
        store.delete_documents("c", ["d1"])


def test_old_files_live_one_commit_longer_then_go(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    directory = store.directory("c")
    (directory / "segments" / "seg-000077").mkdir()
    (directory / "segments" / "seg-000077" / "shard-0.rag").write_bytes(b"left by a crash")
    (directory / "index").mkdir()
    (directory / "index" / "idx-000077.rag").write_bytes(b"left by a crash")
    (directory / "manifest.json.123.tmp").write_bytes(b"left by a crash")
    (directory / "staging").mkdir()
    (directory / "staging" / "vectors.sqlite").write_bytes(b"paid for")
    store.delete_documents("c", ["d0"])
    first = read_manifest(directory).tombstones
    store.delete_documents("c", ["d1"])
    second = read_manifest(directory).tombstones
    store.delete_documents("c", ["d2"])
    third = read_manifest(directory).tombstones
    assert first is not None
    assert second is not None
    assert third is not None
    found = files_below(directory)
    assert first.path not in found
    assert {second.path, third.path, "staging/vectors.sqlite"} <= found
    assert not any("77" in name or name.endswith(".tmp") for name in found)


def test_a_drop_cut_short_is_finished_later(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    make_collection(tmp_path, "d", DOCS)
    # What a crash between the rename and the removal leaves.
    store.directory("c").rename(tmp_path / "collections" / ".trash-c-0000")
    assert store.names() == ["d"]
    assert store.generation("c") is None
    store.create("c", SPEC)
    assert not list((tmp_path / "collections").glob(".trash-*"))
    assert store.names() == ["c", "d"]


def test_a_create_cut_short_can_be_repeated(tmp_path: Path) -> None:
    store = CollectionStore(tmp_path)
    store.directory("c").mkdir(parents=True)
    (store.directory("c") / "manifest.json.9.tmp").write_text("half")
    assert store.names() == []
    store.create("c", SPEC)
    assert store.names() == ["c"]


def test_a_broken_collection_is_reported_and_can_be_dropped(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    path = store.directory("c") / "manifest.json"
    path.write_text("{}")
    with pytest.raises(CorruptData, match=r"manifest\.json"):
        store.generation("c")
    store.drop("c")
    assert store.names() == []


def test_a_folder_nobody_may_write_is_explained(tmp_path: Path) -> None:
    (tmp_path / "collections").write_text("a file where a folder should be")
    with pytest.raises(InvalidInput, match="collection 'c'") as caught:
        CollectionStore(tmp_path).create("c", SPEC)
    assert caught.value.field == "data_dir"


def test_generation_sees_commits_of_others(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    other = CollectionStore(tmp_path)
    before = other.generation("c")
    add_segment(store.directory("c"), [Doc("new", ("n",))])
    assert other.generation("c") == (before or 0) + 1
    bitmap = Snapshot.open(store.directory("c")).filter_bitmap(
        (FilterTerm("document", "in", ("new",)),)
    )
    assert bitmap.tolist() == [0, 0b10000]


def test_a_wanted_recall_is_kept_by_what_is_committed_later(tmp_path: Path) -> None:
    store = make_collection(tmp_path, "c", DOCS)
    first = store.generation("c")
    assert first is not None
    assert store.set_recall("c", 0.9).recall == 0.9
    assert store.set_recall("c", 0.9).generation == first + 1  # nothing to change
    document = Snapshot.open(store.directory("c")).documents(0, 1)[0].document_id
    assert store.delete_documents("c", [document]).recall == 0.9
    assert store.set_recall("c", None).recall is None
    assert store.generation("c") == first + 3
    with pytest.raises(NotFound, match="'other'"):
        store.set_recall("other", 0.9)
    with store.lock("c"), pytest.raises(Conflict):
        store.set_recall("c", 0.5)
