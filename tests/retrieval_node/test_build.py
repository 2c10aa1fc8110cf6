from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import Conflict, CorruptData, InvalidInput, NotFound
from ragschema.storage.blockfile import read_blockfile
from ragschema.types import F32, Metric
from retrieval_node import encode, training
from retrieval_node.build import BuildResult, build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec
from retrieval_node.encode import Encoder
from retrieval_node.layout import ungroup_codes
from retrieval_node.local import LocalSearcher
from retrieval_node.shard_files import IvfIndex, index_from_file
from tests.retrieval_node.making import Plan, clustered, make

#: Rows of an encoded block in these tests.
BLOCK_ROWS = 700


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BLOCK_ROWS", BLOCK_ROWS)


def _spec(tmp_path: Path, vectors: F32, **changes: object) -> BuildSpec:
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "c").mkdir(exist_ok=True)
    values: dict[str, object] = {
        "collection_dir": str(tmp_path / "c"),
        "segment_id": "seg-000004",
        "row_start": 100,
        "vectors": str(tmp_path / "v.npy"),
        "metric": Metric.L2,
        "num_shards": 2,
        "index": IndexChoice(train=TrainSpec("idx-000002")),
    }
    return BuildSpec(**(values | changes))  # type: ignore[arg-type]


def _run(spec: BuildSpec) -> tuple[BuildResult, list[tuple[str, int, int]]]:
    seen: list[tuple[str, int, int]] = []
    return build(spec, lambda *step: seen.append(step)), seen


def test_writes_the_documented_files_and_nothing_else(tmp_path: Path) -> None:
    spec = _spec(tmp_path, clustered(300, 12, 1))
    result, seen = _run(spec)
    written = sorted(
        p.relative_to(tmp_path / "c").as_posix() for p in (tmp_path / "c").rglob("*.*")
    )
    assert written == [
        "index/idx-000002.rag",
        "segments/seg-000004/shard-0.rag",
        "segments/seg-000004/shard-1.rag",
    ]
    assert result.shards == tuple(written[1:])
    assert result.rows_per_shard == (150, 150)
    assert result.index is not None
    assert (result.index.path, result.index.nlist) == (written[0], 7)
    assert result.index.recall_at_10 is not None
    assert result.index.recall_at_10 > 0.97
    phases = [phase for phase, _, _ in seen]
    assert phases == sorted(phases, key=["train", "encode", "write"].index)
    for phase in ("train", "encode", "write"):
        steps = [(done, total) for name, done, total in seen if name == phase]
        assert steps[-1][0] == steps[-1][1]
    shard = read_blockfile(tmp_path / "c" / result.shards[1], "shard")
    assert set(shard.arrays) == {
        "ids", "codes", "list_offsets", "vectors", "bias", "bias_affine",
    }  # fmt: skip
    assert shard.arrays["ids"].min() < 100, "relative to the segment"
    assert shard.arrays["vectors"].dtype == np.float16


def test_the_same_seed_builds_the_same_bytes(tmp_path: Path) -> None:
    spec = _spec(tmp_path, clustered(300, 12, 1))
    _run(spec)
    files = sorted((tmp_path / "c").rglob("*.rag"))
    before = [p.read_bytes() for p in files]
    _run(spec)
    assert [p.read_bytes() for p in files] == before


def test_runs_over_a_half_written_folder_and_spares_what_is_not_its_own(tmp_path: Path) -> None:
    spec = _spec(tmp_path, clustered(300, 12, 1))
    folder = tmp_path / "c" / "segments" / "seg-000004"
    folder.mkdir(parents=True)
    (folder / "shard-0.rag").write_bytes(b"half")
    (folder / "shard-1.rag.tmp").write_bytes(b"half")
    (folder / "texts.sqlite").write_bytes(b"texts")
    other = tmp_path / "c" / "segments" / "seg-000001"
    other.mkdir()
    (other / "shard-0.rag").write_bytes(b"other")
    result, _ = _run(spec)
    for path in result.shards:
        read_blockfile(tmp_path / "c" / path, "shard")
    assert (folder / "texts.sqlite").read_bytes() == b"texts"
    assert (other / "shard-0.rag").read_bytes() == b"other"
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("refine", [True, False])
def test_a_later_segment_uses_the_existing_index(tmp_path: Path, refine: bool) -> None:
    vectors = clustered(300, 12, 1)
    first, _ = _run(_spec(tmp_path, vectors))
    assert first.index is not None
    again = _spec(
        tmp_path, vectors[:5], index=IndexChoice(existing=first.index.path), refine=refine,
        segment_id="seg-000005", row_start=400,
    )  # fmt: skip
    second, seen = _run(again)
    assert second.index is None
    assert "train" not in {phase for phase, _, _ in seen}
    shard = read_blockfile(tmp_path / "c" / second.shards[0], "shard")
    assert ("vectors" in shard.arrays) == refine


def test_exact_segments_keep_float32(tmp_path: Path) -> None:
    vectors = clustered(7, 3, 1)
    result, _ = _run(_spec(tmp_path, vectors, index=None, row_start=0))
    assert result.index is None
    assert sum(result.rows_per_shard) == 7
    shard = read_blockfile(tmp_path / "c" / result.shards[0], "shard")
    np.testing.assert_array_equal(shard.arrays["vectors"], vectors[shard.arrays["ids"]])
    assert shard.arrays["vectors"].dtype == np.float32


def test_no_vectors_make_an_empty_exact_segment_but_no_index(tmp_path: Path) -> None:
    nothing = np.zeros((0, 5), dtype=np.float32)
    result, _ = _run(_spec(tmp_path, nothing, index=None))
    assert result.rows_per_shard == (0, 0)
    with pytest.raises(InvalidInput):
        _run(_spec(tmp_path, nothing))


@pytest.mark.parametrize(
    "vectors",
    [
        clustered(3, 8, 1),
        clustered(100, 1, 1),
        clustered(200, 7, 1),
        np.ones((500, 8), dtype=np.float32),
        np.zeros((50, 4), dtype=np.float32),
        np.repeat(clustered(3, 8, 1), 200, axis=0),
        1e15 * np.sign(clustered(100, 8, 1)),
        (1e-30 * clustered(100, 8, 1)).astype(np.float32),
    ],
    ids=["few", "one dim", "prime dim", "constant", "zero", "copies", "huge", "tiny"],
)
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_odd_data_builds(tmp_path: Path, vectors: F32, metric: Metric) -> None:
    result, _ = _run(_spec(tmp_path, np.asarray(vectors, dtype=np.float32), metric=metric))
    assert sum(result.rows_per_shard) == len(vectors)
    assert result.index is not None
    stored = read_blockfile(tmp_path / "c" / result.shards[0], "shard").arrays["vectors"]
    if np.abs(vectors).max() > 1e4 or 0 < np.abs(vectors).max() < 1e-5:
        assert stored.dtype == np.float32, "float16 cannot hold these"
    else:
        assert stored.dtype == np.float16


def test_the_type_of_stored_vectors_can_be_asked_for(tmp_path: Path) -> None:
    spec = _spec(tmp_path, clustered(300, 12, 1), vector_type="float32")
    result, _ = _run(spec)
    stored = read_blockfile(tmp_path / "c" / result.shards[0], "shard").arrays["vectors"]
    assert stored.dtype == np.float32
    exact, _ = _run(replace(spec, index=None, vector_type="float16"))
    stored = read_blockfile(tmp_path / "c" / exact.shards[0], "shard").arrays["vectors"]
    assert stored.dtype == np.float16
    with pytest.raises(InvalidInput, match="float16") as caught:
        _run(_spec(tmp_path, 1e6 * clustered(3, 12, 1), index=None, vector_type="float16"))
    assert "float32" in (caught.value.hint or "")


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_but_the_time(tmp_path: Path, threads: int) -> None:
    train = TrainSpec("idx-000002", nlist=16, m=4, measure=False)
    vectors = clustered(3 * BLOCK_ROWS + 5, 8, 1)
    result, seen = _run(_spec(tmp_path, vectors, index=IndexChoice(train=train), threads=threads))
    file = read_blockfile(tmp_path / "c" / result.shards[0], "shard")
    ids, offsets = file.arrays["ids"], file.arrays["list_offsets"]
    index = _index(tmp_path, result)
    lists, codes = Encoder(index)(vectors[ids])
    np.testing.assert_array_equal(lists, np.repeat(np.arange(16), np.diff(offsets)))
    np.testing.assert_array_equal(ungroup_codes(file.arrays["codes"], offsets, 4), codes)
    assert [done for phase, done, _ in seen if phase == "encode"][-1] == len(vectors)


def _index(tmp_path: Path, result: BuildResult) -> IvfIndex:
    assert result.index is not None
    file = read_blockfile(tmp_path / "c" / result.index.path, "ivfpq-index")
    return index_from_file(file, Metric.L2, 8, residual=True)


class _Killed(BaseException):
    """Ends a build as a signal would, without any of its own handling."""


def test_a_killed_build_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(4 * BLOCK_ROWS, 8, 1)
    train = TrainSpec("idx-000002", nlist=8, m=4, measure=False)
    spec = _spec(tmp_path, vectors, index=IndexChoice(train=train), threads=1)
    (tmp_path / "whole").mkdir()
    whole, _ = _run(replace(spec, collection_dir=str(tmp_path / "whole")))

    def dies(phase: str, done: int, total: int) -> None:
        if phase == "encode" and done >= 2 * BLOCK_ROWS:
            raise _Killed

    with pytest.raises(_Killed):
        build(spec, dies)
    assert not (tmp_path / "c" / "segments").exists()
    trained, encoded = [], []
    monkeypatch.setattr(training, "train_index", lambda *_: trained.append(1))
    assign = training.assign
    monkeypatch.setattr(
        training, "assign", lambda v, *rest: (encoded.append(len(v)), assign(v, *rest))[1]
    )
    # Another name for the index and the segment, as a new run of the coordinator has.
    train = replace(train, id="idx-000003")
    spec = replace(spec, index=IndexChoice(train=train), segment_id="seg-000009")
    result, _ = _run(spec)
    assert not trained
    assert sum(encoded) < len(vectors)
    for mine, other in zip(result.shards, whole.shards, strict=True):
        assert (tmp_path / "c" / mine).read_bytes() == (tmp_path / "whole" / other).read_bytes()
    assert not (tmp_path / "c" / "staging" / "build").exists()


def test_left_over_work_on_other_vectors_is_not_used(tmp_path: Path) -> None:
    train = TrainSpec("idx-000002", nlist=8, m=4, measure=False)
    vectors = clustered(2 * BLOCK_ROWS, 8, 1)
    spec = _spec(tmp_path, vectors, index=IndexChoice(train=train), threads=1)

    def dies(phase: str, done: int, total: int) -> None:
        if phase == "write":
            raise _Killed

    with pytest.raises(_Killed):
        build(spec, dies)
    scratch = tmp_path / "c" / "staging" / "build"
    codes = bytearray((scratch / "codes").read_bytes())
    codes[5] ^= 1  # a block damaged since
    (scratch / "codes").write_bytes(codes)
    changed = vectors.copy()
    changed[BLOCK_ROWS + 7] += 0.25  # and a block whose input is another
    np.save(tmp_path / "v.npy", changed)
    (tmp_path / "fresh").mkdir()
    result, _ = _run(replace(spec, collection_dir=str(tmp_path / "fresh")))
    again, _ = _run(spec)
    for mine, other in zip(again.shards, result.shards, strict=True):
        assert (tmp_path / "c" / mine).read_bytes() == (tmp_path / "fresh" / other).read_bytes()


def test_two_builders_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    train = TrainSpec("idx-000002", nlist=8, m=4, measure=False)
    spec = _spec(tmp_path, clustered(300, 8, 1), index=IndexChoice(train=train))
    refused: list[Conflict] = []

    def other_starts(phase: str, done: int, total: int) -> None:
        if phase == "encode" and not refused:
            with pytest.raises(Conflict) as caught:
                build(replace(spec, segment_id="seg-000005", index=None), lambda *_: None)
            refused.append(caught.value)

    result = build(spec, other_starts)
    assert refused[0].hint
    assert not (tmp_path / "c" / "segments" / "seg-000005").exists()
    for path in result.shards:
        read_blockfile(tmp_path / "c" / path, "shard")
    _run(replace(spec, segment_id="seg-000005", index=None))


def test_bad_vectors_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    nan = clustered(300, 12, 1)
    nan[217, 3] = np.nan
    long = clustered(300, 12, 1, Metric.COSINE)
    long[5] *= 2
    for vectors, metric, said in (
        (nan, Metric.L2, "vector 217"),
        (long, Metric.COSINE, "vector 5 has length 2"),
        (np.zeros((3, 0), dtype=np.float32), Metric.L2, "dimension 0"),
        (np.zeros((3, 4)), Metric.L2, "float32"),
        (np.zeros(3, dtype=np.float32), Metric.L2, "float32"),
    ):
        with pytest.raises(InvalidInput, match=said) as caught:
            _run(_spec(tmp_path, vectors, metric=metric))
        assert caught.value.field == "vectors"
    assert not list((tmp_path / "c").iterdir())


def test_pickled_arrays_and_missing_files_are_refused(tmp_path: Path) -> None:
    spec = _spec(tmp_path, clustered(10, 4, 1))
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput):
        _run(spec)
    (tmp_path / "v.npy").unlink()
    with pytest.raises(NotFound):
        _run(spec)


def test_an_index_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    first, _ = _run(_spec(tmp_path, clustered(300, 12, 1)))
    assert first.index is not None
    choice = IndexChoice(existing=first.index.path)
    with pytest.raises(InvalidInput, match="16 components"):
        _run(_spec(tmp_path, clustered(5, 16, 1), index=choice))
    with pytest.raises(InvalidInput, match="leaves the collection"):
        _run(_spec(tmp_path, clustered(5, 12, 1), index=IndexChoice(existing="../v.npy")))
    path = tmp_path / "c" / first.index.path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptData, match=r"idx-000002\.rag"):
        _run(_spec(tmp_path, clustered(5, 12, 1), index=choice))


@pytest.mark.parametrize("metric", list(Metric))
def test_default_settings_find_the_true_neighbours(tmp_path: Path, metric: Metric) -> None:
    made = make(
        tmp_path / "c",
        Plan(metric=metric, dim=24, segments=(3000,), nlist=None, m=None, measure=True),
    )
    queries = clustered(60, 24, 77, metric)
    if metric is Metric.L2:
        distances = ((queries[:, None, :] - made.vectors[None]) ** 2).sum(axis=2)
    else:
        distances = -queries @ made.vectors.T
    truth = np.argsort(distances, axis=1)[:, :10]
    searcher = LocalSearcher(made.directory, "fpga")
    found = searcher.search(searcher.batch(queries, 10)).row_ids
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= 0.95
    searcher.close()
