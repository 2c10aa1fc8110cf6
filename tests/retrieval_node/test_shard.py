from __future__ import annotations

import gc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData, InvalidInput
from ragschema.storage.blockfile import read_blockfile, write_blockfile
from ragschema.storage.manifest import Manifest, file_ref
from ragschema.types import I64, Metric
from retrieval_node.layout import lane_offsets
from retrieval_node.segment import SegmentRows
from retrieval_node.shard import Memory, ShardReader, ShardSet
from tests.retrieval_node.making import Made, Plan, make, write_tombstones

PLAN = Plan(segments=(200, 90, 30), shards=2, dead=(0, 7, 250, 300), fresh=True)
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


def _verify(loaded: ShardSet) -> None:
    """What a search over everything would touch."""
    for shard in loaded.shards.values():
        for segment in shard.segments:
            segment.file.verify_all()


def _orders_of_lists(segment: SegmentRows) -> list[I64]:
    """What the rows of each list are in order of: row ids, or their bias terms."""
    offsets = segment.list_offsets
    if segment.bias is None:
        return [segment.row_ids()[a:b] for a, b in pairwise(offsets)]
    lanes = lane_offsets(offsets)
    rows = np.diff(offsets)
    return [segment.bias[a : a + n].astype(np.int64) for a, n in zip(lanes, rows, strict=False)]


@pytest.mark.parametrize("memory", ["map", "huge"])
def test_rows_of_all_segments_are_there_once(made: Made, memory: Memory) -> None:
    loaded = ShardReader(memory).open(made.directory, made.manifest, (0, 1))
    assert loaded.live_rows == 316
    assert sum(shard.live_rows for shard in loaded.shards.values()) == 316
    seen = []
    for shard in loaded.shards.values():
        assert [s.row_start for s in shard.segments] == [0, 200, 290]
        assert [s.exact for s in shard.segments] == [False, False, True]
        for segment in shard.segments:
            ids = segment.row_ids()
            for order in _orders_of_lists(segment):
                assert (np.diff(order) >= 0).all()
            assert segment.vectors is not None
            kept = np.float32 if segment.exact else np.float16
            np.testing.assert_array_equal(segment.vectors, made.vectors[ids].astype(kept))
            seen += ids.tolist()
    assert sorted(seen) == list(range(320))
    assert loaded.refine
    assert loaded.live is not None
    live = np.unpackbits(loaded.live, count=320, bitorder="little")
    assert np.flatnonzero(live == 0).tolist() == [0, 7, 250, 300]


@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("rotate", [True, False])
def test_codes_decode_to_about_their_vectors(
    tmp_path: Path, metric: Metric, residual: bool, rotate: bool
) -> None:
    plan = Plan(metric=metric, m=8, segments=(900,), residual=residual, rotate=rotate)
    made = make(tmp_path / "books", plan)
    loaded = ShardReader().open(made.directory, made.manifest, (0,))
    index, (segment,) = loaded.index, loaded.shards[0].segments
    assert index is not None
    assert (index.rotation is not None) == rotate
    picked = index.codebooks[np.arange(index.m), segment.row_codes()].reshape(900, -1)
    if residual:
        lists = np.repeat(np.arange(index.nlist), np.diff(segment.list_offsets))
        picked = picked + index.centroids[lists]
    turned = index.rotate(made.vectors[segment.row_ids()])
    error = ((turned - picked) ** 2).sum() / (made.vectors**2).sum()
    assert error < 0.03
    assert (segment.bias is not None) == (metric is Metric.L2)


def test_generations_share_what_they_have_in_common(made: Made) -> None:
    reader = ShardReader()
    first = reader.open(made.directory, made.manifest, (0, 1))
    ref = write_tombstones(made.directory, np.array([0, 1, 2, 3], dtype=np.int64), "t2")
    index = made.manifest.index
    assert index is not None
    later = replace(
        made.manifest, generation=2, tombstones=ref, index=replace(index, nprobe=3),
        segments=made.manifest.segments[:2],
    )  # fmt: skip
    second = reader.open(made.directory, later, (0, 1))
    assert second.index is first.index
    for number in (0, 1):
        old, new = first.shards[number].segments, second.shards[number].segments
        assert new == old[:2]
    assert (first.live_rows, second.live_rows) == (316, 286)
    for path in (made.directory / "segments").rglob("*.rag"):
        path.unlink()
    reader.open(made.directory, replace(later, generation=3), (0, 1))
    del first, second, old, new
    gc.collect()
    with pytest.raises(CorruptData):
        reader.open(made.directory, later, (0, 1))


@pytest.mark.parametrize("memory", ["map", "huge"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("plan", [PLAN, PLAIN], ids=["ivfpq", "exact"])
def test_a_flipped_byte_anywhere_is_refused_with_the_file_named(
    tmp_path: Path, plan: Plan, whole: bool, memory: Memory
) -> None:
    made = make(tmp_path / "books", plan)
    shards = tuple(range(plan.shards))
    verified = {} if whole else {"verify_up_to_bytes": 0}
    seed = 5
    rng = np.random.default_rng(seed)
    for path in _files(made):
        body = path.read_bytes()
        for at in [0, 7, 9, 20, len(body) - 1, *rng.integers(0, len(body), 6).tolist()]:
            broken = bytearray(body)
            broken[at] ^= 1 << int(rng.integers(0, 8))
            path.unlink()
            path.write_bytes(broken)
            with pytest.raises(CorruptData) as caught:
                _verify(ShardReader(memory, **verified).open(made.directory, made.manifest, shards))
            assert str(path) in caught.value.message, f"seed {seed}, byte {at}"
        path.unlink()
        path.write_bytes(body)
    _verify(ShardReader(memory, **verified).open(made.directory, made.manifest, shards))


def test_a_shortened_or_missing_file_is_refused_with_the_file_named(made: Made) -> None:
    for path in _files(made):
        body = path.read_bytes()
        for size in (0, 10, len(body) // 2, len(body) - 1):
            path.write_bytes(body[:size])
            with pytest.raises(CorruptData, match=path.name):
                ShardReader(verify_up_to_bytes=0).open(made.directory, made.manifest, (0, 1))
        path.unlink()
        with pytest.raises(CorruptData, match=path.name):
            ShardReader().open(made.directory, made.manifest, (0, 1))
        path.write_bytes(body)


@pytest.mark.parametrize(("version", "hint"), [(1, "ingest"), (3, "newer release")])
def test_a_file_of_another_version_is_refused(made: Made, version: int, hint: str) -> None:
    for path in _files(made):
        body = path.read_bytes()
        path.write_bytes(body[:7] + bytes([version]) + body[8:])
        with pytest.raises(CorruptData, match=f"format version {version}") as caught:
            ShardReader().open(made.directory, made.manifest, (0, 1))
        assert str(path) in caught.value.message
        assert hint in (caught.value.hint or "")
        path.write_bytes(body)


@pytest.mark.parametrize(
    ("name", "array", "change"),
    [
        ("shard-0.rag", "ids", lambda a: a.astype(np.int64)),
        ("shard-0.rag", "ids", lambda a: np.resize(a, 1000)),
        ("shard-0.rag", "list_offsets", lambda a: a + 1),
        ("shard-0.rag", "list_offsets", lambda a: a[:-1]),
        ("shard-0.rag", "list_offsets", lambda a: np.concatenate([[0, 99, 3], a[3:]])),
        ("shard-0.rag", "list_offsets", lambda a: a * (np.arange(len(a)) != 3) + (-1 << 63)),
        ("shard-0.rag", "list_offsets", None),
        ("shard-0.rag", "codes", lambda a: a[:-1]),
        ("shard-0.rag", "codes", None),
        ("shard-0.rag", "bias", lambda a: a[:-64]),
        ("shard-0.rag", "bias", None),
        ("shard-0.rag", "bias_affine", lambda a: a[:-1]),
        ("shard-0.rag", "bias_affine", lambda a: np.full_like(a, np.nan)),
        ("shard-0.rag", "bias_affine", None),
        ("shard-0.rag", "vectors", lambda a: a[:-1]),
        ("shard-0.rag", "vectors", lambda a: a.astype(np.int32)),
        ("shard-0.rag", "vectors", None),
        ("idx-000001.rag", "centroids", lambda a: np.full_like(a, np.inf)),
        ("idx-000001.rag", "centroids", lambda a: a[:-1]),
        ("idx-000001.rag", "codebooks", lambda a: a[:, :255]),
        ("idx-000001.rag", "codebooks", None),
        ("idx-000001.rag", "shift", None),
        ("idx-000001.rag", "shift", lambda a: a[:-1]),
        ("t1.rag", "rows", lambda a: a[::-1].copy()),
        ("t1.rag", "rows", lambda a: a + 10_000),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(made: Made, name, array, change) -> None:  # type: ignore[no-untyped-def]
    """A right checksum does not make offsets safe to follow."""
    path = next(p for p in _files(made) if p.name == name)
    kind = {"s": "shard", "i": "ivfpq-index", "t": "tombstones"}[name[0]]
    file = read_blockfile(path, kind)
    arrays = dict(file.arrays)
    if change is None:
        del arrays[array]
    else:
        arrays[array] = np.ascontiguousarray(change(arrays[array]))
    write_blockfile(path, kind, file.meta, arrays)
    with pytest.raises(CorruptData, match=name):
        ShardReader().open(made.directory, _reread(made, path), (0, 1))


def test_a_rotation_must_be_announced(tmp_path: Path) -> None:
    made = make(tmp_path / "books", replace(PLAN, rotate=True))
    index = made.manifest.index
    assert index is not None
    plain = replace(made.manifest, index=replace(index, rotated=False))
    with pytest.raises(CorruptData, match=r"idx-000001\.rag"):
        ShardReader().open(made.directory, plain, (0,))


def test_row_ids_beyond_the_segment_are_refused_before_they_are_used(made: Made) -> None:
    path = next(p for p in _files(made) if p.name == "shard-0.rag")
    file = read_blockfile(path, "shard")
    ids = file.arrays["ids"].copy()
    ids[-1] = 200
    write_blockfile(path, "shard", file.meta, dict(file.arrays) | {"ids": ids})
    loaded = ShardReader().open(made.directory, replace(_reread(made, path), tombstones=None), (0,))
    with pytest.raises(CorruptData, match=r"shard-0\.rag"):
        loaded.shards[0].segments[0].row_ids()


def test_a_file_of_another_kind_is_refused(made: Made) -> None:
    shard = next(p for p in _files(made) if p.name == "shard-1.rag")
    tombstones = next(p for p in _files(made) if p.name == "t1.rag")
    shard.write_bytes(tombstones.read_bytes())
    with pytest.raises(CorruptData, match=r"shard-1\.rag: holds 'tombstones'"):
        ShardReader().open(made.directory, _reread(made, shard), (0, 1))


def test_what_cannot_be_asked_is_refused(made: Made) -> None:
    with pytest.raises(InvalidInput) as caught:
        ShardReader().open(made.directory, made.manifest, (0, 2))
    assert caught.value.field == "shards"
    with pytest.raises(InvalidInput) as caught:
        ShardReader("swap")  # type: ignore[arg-type]
    assert caught.value.field == "memory"


def test_an_empty_collection_opens(made: Made) -> None:
    empty = replace(made.manifest, segments=(), tombstones=None)
    for manifest in (empty, replace(empty, index=None)):
        loaded = ShardReader().open(made.directory, manifest, (0, 1))
        assert loaded.live_rows == 0
        assert loaded.shards[1].segments == ()


def test_bytes_are_told_honestly(tmp_path: Path) -> None:
    made = make(tmp_path / "books", Plan(segments=(6400,), refine=False, nlist=4, m=8))
    loaded = ShardReader().open(made.directory, made.manifest, (0,))
    (segment,) = loaded.shards[0].segments
    least = 6400 * (8 + 4 + 2)
    assert segment.vectors is None
    assert least < segment.resident_bytes < least + 4 * 64 * 10 + 1000
    assert loaded.resident_bytes > segment.resident_bytes
