from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData, InvalidInput
from ragschema.storage.blockfile import read_blockfile, write_blockfile
from ragschema.storage.manifest import Manifest, file_ref
from retrieval_node.shard import ShardReader
from tests.retrieval_node.making import Made, Plan, make, write_tombstones

PLAN = Plan(segments=(200, 90), shards=2, dead=(0, 7, 250))
PLAIN = Plan(segments=(60,), exact=True, dead=(1,))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "books", PLAN)


def _files(made: Made) -> list[Path]:
    return sorted(p for p in made.directory.rglob("*.rag"))


def _reread(made: Made, changed: Path) -> Manifest:
    """The manifest with fresh checksums of one file, as if it had been written so."""
    ref = file_ref(made.directory, changed)

    def swap(old):  # type: ignore[no-untyped-def]
        return ref if old is not None and old.path == ref.path else old

    manifest = made.manifest
    index = manifest.index and replace(manifest.index, file=swap(manifest.index.file))
    segments = tuple(replace(s, shards=tuple(map(swap, s.shards))) for s in manifest.segments)
    return replace(manifest, index=index, segments=segments, tombstones=swap(manifest.tombstones))


def test_rows_of_all_segments_are_there_once(made: Made) -> None:
    loaded = ShardReader().open(made.directory, made.manifest, (0, 1))
    ids = np.concatenate([s.rows.ids for s in loaded.shards.values()])
    assert sorted(ids.tolist()) == list(range(290))
    assert loaded.live_rows == 287
    assert sum(int((s.alive == 0).sum()) for s in loaded.shards.values() if len(s.alive)) == 3
    for shard in loaded.shards.values():
        rows = shard.rows
        for a, b in zip(rows.list_offsets[:-1], rows.list_offsets[1:], strict=True):
            assert (np.diff(rows.ids[a:b]) > 0).all()
        assert rows.vectors is not None
        np.testing.assert_array_equal(rows.vectors, made.vectors[rows.ids].astype(np.float16))
        at = rows.positions(rows.ids)
        assert at.tolist() == list(range(len(rows.ids)))
        assert rows.positions(np.array([10_000])).tolist() == [-1]


def test_a_generation_with_only_new_tombstones_shares_its_rows(made: Made) -> None:
    reader = ShardReader()
    first = reader.open(made.directory, made.manifest, (0, 1))
    ref = write_tombstones(made.directory, np.array([0, 1, 2, 3], dtype=np.int64), "t2")
    later = replace(made.manifest, generation=2, tombstones=ref)
    for path in (made.directory / "segments").rglob("*.rag"):
        path.unlink()
    second = reader.open(made.directory, later, (0, 1))
    assert second.shards[0].rows is first.shards[0].rows
    assert second.index is first.index
    assert second.live_rows == 286
    assert first.live_rows == 287
    del first, second
    gc.collect()
    with pytest.raises(CorruptData):
        reader.open(made.directory, later, (0, 1))


@pytest.mark.parametrize("plan", [PLAN, PLAIN], ids=["ivfpq", "exact"])
def test_a_flipped_byte_anywhere_is_refused_with_the_file_named(tmp_path: Path, plan: Plan) -> None:
    made = make(tmp_path / "books", plan)
    shards = tuple(range(plan.shards))
    seed = 5
    rng = np.random.default_rng(seed)
    for path in _files(made):
        body = path.read_bytes()
        for at in [0, 7, 9, 20, len(body) - 1, *rng.integers(0, len(body), 6).tolist()]:
            broken = bytearray(body)
            broken[at] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(broken)
            with pytest.raises(CorruptData) as caught:
                ShardReader().open(made.directory, made.manifest, shards)
            assert str(path) in caught.value.message, f"seed {seed}, byte {at}"
        path.write_bytes(body)
    ShardReader().open(made.directory, made.manifest, shards)


def test_a_shortened_or_missing_file_is_refused_with_the_file_named(made: Made) -> None:
    for path in _files(made):
        body = path.read_bytes()
        for size in (0, 10, len(body) // 2, len(body) - 1):
            path.write_bytes(body[:size])
            with pytest.raises(CorruptData, match=path.name):
                ShardReader().open(made.directory, made.manifest, (0, 1))
        path.unlink()
        with pytest.raises(CorruptData, match=path.name):
            ShardReader().open(made.directory, made.manifest, (0, 1))
        path.write_bytes(body)


def test_a_file_of_a_newer_version_is_refused(made: Made) -> None:
    for path in _files(made):
        body = path.read_bytes()
        path.write_bytes(body[:7] + bytes([2]) + body[8:])
        with pytest.raises(CorruptData, match="format version 2") as caught:
            ShardReader().open(made.directory, _reread(made, path), (0, 1))
        assert str(path) in caught.value.message
        path.write_bytes(body)


@pytest.mark.parametrize(
    ("name", "array", "change"),
    [
        ("shard-0.rag", "ids", lambda a: a + 1000),
        ("shard-0.rag", "ids", lambda a: a[::-1].copy()),
        ("shard-0.rag", "list_offsets", lambda a: a + 1),
        ("shard-0.rag", "list_offsets", lambda a: a[:-1]),
        ("shard-0.rag", "list_offsets", lambda a: np.concatenate([[0, 99, 3], a[3:]])),
        ("shard-0.rag", "codes", lambda a: a[:, :-1]),
        ("shard-0.rag", "vectors", lambda a: a[:-1]),
        ("shard-0.rag", "vectors", lambda a: np.full_like(a, np.nan)),
        ("shard-0.rag", "vectors", lambda a: a.astype(np.float32)),
        ("idx-000001.rag", "centroids", lambda a: np.full_like(a, np.inf)),
        ("idx-000001.rag", "codebooks", lambda a: a[:, :255]),
        ("idx-000001.rag", "codebooks", None),
        ("t1.rag", "rows", lambda a: a[::-1].copy()),
        ("t1.rag", "rows", lambda a: a + 10_000),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(made: Made, name, array, change) -> None:  # type: ignore[no-untyped-def]
    """A right checksum does not make offsets safe to follow."""
    path = next(p for p in _files(made) if p.name == name)
    kind = {"s": "shard", "i": "ivfpq-index", "t": "tombstones"}[name[0]]
    file = read_blockfile(path, kind)
    arrays = {k: v.copy() for k, v in file.arrays.items()}
    if change is None:
        del arrays[array]
    else:
        arrays[array] = np.ascontiguousarray(change(arrays[array]), dtype=None)
    write_blockfile(path, kind, file.meta, arrays)
    with pytest.raises(CorruptData, match=name):
        ShardReader().open(made.directory, _reread(made, path), (0, 1))


def test_a_file_of_another_kind_is_refused(made: Made) -> None:
    shard = next(p for p in _files(made) if p.name == "shard-1.rag")
    tombstones = next(p for p in _files(made) if p.name == "t1.rag")
    shard.write_bytes(tombstones.read_bytes())
    with pytest.raises(CorruptData, match=r"shard-1\.rag: holds 'tombstones'"):
        ShardReader().open(made.directory, _reread(made, shard), (0, 1))


def test_a_shard_the_collection_has_not_is_refused(made: Made) -> None:
    with pytest.raises(InvalidInput) as caught:
        ShardReader().open(made.directory, made.manifest, (0, 2))
    assert caught.value.field == "shards"


def test_an_empty_collection_opens(made: Made) -> None:
    empty = replace(made.manifest, segments=(), tombstones=None)
    for manifest in (empty, replace(empty, index=None)):
        loaded = ShardReader().open(made.directory, manifest, (0, 1))
        assert loaded.live_rows == 0
        assert loaded.resident_bytes > 0
