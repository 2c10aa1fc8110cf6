"""A disk that fills up while an index is built: said clearly, nothing half-written, goes on."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragschema.errors import CorruptData, Unavailable
from ragschema.storage.blockfile import read_blockfile
from ragschema.types import Metric
from retrieval_node.build import build
from retrieval_node.build_spec import BuildSpec, IndexChoice, TrainSpec
from tests.retrieval_node.making import clustered

TRAIN = TrainSpec("idx-000001", nlist=8, m=4, measure=False)


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As a full disk looks to whoever writes: the call fails half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def spec(tmp_path: Path) -> BuildSpec:
    np.save(tmp_path / "v.npy", clustered(3000, 16, 1))
    (tmp_path / "c").mkdir()
    return BuildSpec(
        collection_dir=str(tmp_path / "c"),
        segment_id="seg-000001",
        row_start=0,
        vectors=str(tmp_path / "v.npy"),
        metric=Metric.L2,
        num_shards=2,
        index=IndexChoice(train=TRAIN),
        threads=2,
    )


def _visible(spec: BuildSpec) -> set[str]:
    """Files under their final names; each of them must be whole."""
    directory = Path(spec.collection_dir)
    found = set()
    for folder, kind in (("index", "ivfpq-index"), ("segments", "shard")):
        for path in (directory / folder).rglob("*.*"):
            read_blockfile(path, kind)
            found.add(path.name)
    return found


def test_wherever_the_disk_fills_up(spec: BuildSpec, tmp_path: Path) -> None:
    reached: list[set[str]] = []
    # 500 bytes: the trained index. 11 000: the lists. 20 000: the index stands, the
    # lists fit, codes fit, shards of codes and vectors do not.
    for size in (500, 11_000, 20_000, 40_000):
        with no_file_larger_than(size), pytest.raises(Unavailable) as caught:
            build(spec, lambda *_: None)
        assert str(tmp_path / "c") in caught.value.message, size
        assert "free disk space" in (caught.value.hint or "")
        reached.append(_visible(spec))
    assert reached[0] == set()
    assert reached[-1] == {"idx-000001.rag"}
    assert not list((tmp_path / "c").rglob("*.tmp"))

    whole = build(spec, lambda *_: None)
    (tmp_path / "other").mkdir()
    fresh = build(replace(spec, collection_dir=str(tmp_path / "other")), lambda *_: None)
    for mine, other in zip(whole.shards, fresh.shards, strict=True):
        assert (tmp_path / "c" / mine).read_bytes() == (tmp_path / "other" / other).read_bytes()


def test_an_exact_segment_too(spec: BuildSpec) -> None:
    exact = replace(spec, index=None)
    with no_file_larger_than(30_000), pytest.raises(Unavailable, match=r"shard-0\.rag"):
        build(exact, lambda *_: None)
    assert _visible(exact) == set()
    assert sum(build(exact, lambda *_: None).rows_per_shard) == 3000


def test_the_second_shard_may_be_the_one_that_does_not_fit(
    spec: BuildSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval_node import build_write

    write = build_write.write_streamed

    def full_at_the_second(path: Path, *rest: object) -> None:
        if path.name == "shard-1.rag.tmp":
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        write(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build_write, "write_streamed", full_at_the_second)
    with pytest.raises(Unavailable, match=r"shard-1\.rag"):
        build(spec, lambda *_: None)
    assert _visible(spec) == {"idx-000001.rag", "shard-0.rag"}
    assert not list(Path(spec.collection_dir).rglob("*.tmp"))
    monkeypatch.undo()
    with pytest.raises(CorruptData):
        read_blockfile(Path(spec.collection_dir) / "segments/seg-000001/shard-1.rag", "shard")
    build(spec, lambda *_: None)
    assert _visible(spec) == {"idx-000001.rag", "shard-0.rag", "shard-1.rag"}
