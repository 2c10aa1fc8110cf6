from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData, InvalidInput, NotFound
from ragschema.storage.manifest import commit_manifest
from ragschema.types import SnapshotId
from retrieval_node.backends.registry import open_backend
from retrieval_node.engine import SearchEngine
from retrieval_node.loaded import LoadedSnapshots
from tests.retrieval_node.making import Made, Plan, make, write_tombstones

FIRST = SnapshotId("books", 1)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "collections" / "books", Plan(segments=(300,), shards=3))


@pytest.fixture
def held(tmp_path: Path, made: Made) -> LoadedSnapshots:
    return LoadedSnapshots(tmp_path, SearchEngine(open_backend("fpga")))


def _next_generation(made: Made) -> None:
    ref = write_tombstones(made.directory, np.array([4], dtype=np.int64), "t9")
    commit_manifest(
        made.directory, replace(made.manifest, generation=2, tombstones=ref, live_rows=299)
    )


def test_shards_add_up_and_loading_twice_changes_nothing(held: LoadedSnapshots) -> None:
    assert set(held.load(FIRST, (0,)).shards) == {0}
    both = held.load(FIRST, (2,))
    assert set(both.shards) == {0, 2}
    assert held.load(FIRST, (0, 2)) is both
    assert held.get(FIRST) is both


def test_an_old_generation_stays_until_it_is_unloaded(made: Made, held: LoadedSnapshots) -> None:
    old = held.load(FIRST, (0, 1, 2))
    _next_generation(made)
    second = SnapshotId("books", 2)
    new = held.load(second, (0, 1, 2))
    assert (old.live_rows, new.live_rows) == (300, 299)
    assert new.shards[1].segments == old.shards[1].segments
    assert held.load(FIRST, (0,)) is old
    assert [s.snapshot.generation for s in held.all()] == [1, 2]
    assert held.unload(FIRST)
    assert not held.unload(FIRST)
    with pytest.raises(NotFound) as caught:
        held.get(FIRST)
    assert "LoadShards" in (caught.value.hint or "")


def test_what_cannot_be_loaded_is_refused(made: Made, held: LoadedSnapshots) -> None:
    with pytest.raises(NotFound):
        held.load(SnapshotId("films", 1), (0,))
    with pytest.raises(NotFound) as caught:
        held.load(SnapshotId("books", 7), (0,))
    assert caught.value.field == "snapshot.generation"
    with pytest.raises(InvalidInput):
        held.load(FIRST, (3,))
    with pytest.raises(InvalidInput):
        held.load(FIRST, ())
    assert held.all() == ()


def test_a_shard_moves_while_both_nodes_serve(
    tmp_path: Path, made: Made, held: LoadedSnapshots
) -> None:
    other = LoadedSnapshots(tmp_path, SearchEngine(open_backend("fpga")))
    before = held.load(FIRST, (0, 1))
    other.load(FIRST, (2,))
    segments = before.shards[1].segments
    assert set(other.load(FIRST, (1,)).shards) == {1, 2}
    assert held.unload(FIRST, (1,))
    assert set(held.get(FIRST).shards) == {0}
    assert held.get(FIRST).shards[0] is before.shards[0]
    # A search that began before goes on with what it holds.
    assert before.shards[1].segments == segments
    assert not held.unload(FIRST, (1, 2))
    assert set(held.load(FIRST, (2,)).shards) == {0, 2}
    assert held.unload(FIRST, (0, 2, 7))
    with pytest.raises(NotFound):
        held.get(FIRST)
    assert not held.unload(FIRST, (0,))


@pytest.mark.parametrize("name", ["../books", "books/../books", "/etc", "", "Books", "a" * 64])
def test_names_cannot_leave_the_data_directory(held: LoadedSnapshots, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        held.load(SnapshotId(name, 1), (0,))
    assert caught.value.field == "collection"


def test_a_corrupt_file_leaves_what_is_loaded_alone(made: Made, held: LoadedSnapshots) -> None:
    loaded = held.load(FIRST, (0,))
    path = made.directory / made.manifest.segments[0].shards[1].path
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    with pytest.raises(CorruptData, match=r"shard-1\.rag"):
        held.load(FIRST, (1,))
    assert held.get(FIRST) is loaded
