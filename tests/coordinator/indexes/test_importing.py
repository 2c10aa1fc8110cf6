from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import CollectionStore
from coordinator.indexes.child import run_index_command
from coordinator.indexes.importing import Imported, ImportRequest, import_faiss
from ragschema.errors import (
    Conflict,
    CorruptData,
    InternalError,
    InvalidInput,
    NotFound,
    RagrigError,
)
from ragschema.types import Metric
from tests.coordinator.indexes.files import DIM, ROWS, damage, write_index


def _import(tmp_path: Path, texts: Path | None = None, name: str = "taken") -> Imported:
    request = ImportRequest(tmp_path / "data", name, tmp_path / "index.faiss", texts, 2)
    return asyncio.run(import_faiss(request, lambda *_: None))


def _nothing_is_left(tmp_path: Path) -> bool:
    return not (tmp_path / "data" / "collections" / "taken").exists()


def test_a_file_becomes_a_collection(tmp_path: Path) -> None:
    write_index(tmp_path / "index.faiss", "OPQ4,IVF16,PQ4,RFlat")
    manifest = _import(tmp_path).manifest
    assert (manifest.dim, manifest.metric, manifest.live_rows) == (DIM, Metric.L2, ROWS)
    assert manifest.embedder is None
    assert manifest.index is not None
    assert (manifest.index.nprobe, manifest.index.refine_factor) == (2, 1)
    assert (manifest.index.rotated, manifest.index.residual) == (True, True)
    store = CollectionStore(tmp_path / "data")
    assert store.names() == ["taken"]
    directory = store.directory("taken")
    assert not (directory / "staging").exists()
    with contextlib.closing(Snapshot.open(directory)) as snapshot:
        (chunk,) = snapshot.chunks([5])
        assert chunk is not None
        assert (chunk.document_id, chunk.text, chunk.metadata) == ("5", "", {"faiss_id": 5})


def test_texts_name_rows_by_ascending_id(tmp_path: Path) -> None:
    ids = (900, -4, 17, *range(1000, 1400))
    write_index(tmp_path / "index.faiss", ids=ids)
    texts = tmp_path / "texts.jsonl"
    lines = [{"text": f"text of {i}"} for i in sorted(ids)]
    lines[1] |= {"id": "seventeen", "title": "Seventeen", "metadata": {"odd": True}}
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _import(tmp_path, texts)
    directory = CollectionStore(tmp_path / "data").directory("taken")
    with contextlib.closing(Snapshot.open(directory)) as snapshot:
        first, second, third = (c for c in snapshot.chunks([0, 1, 2]) if c is not None)
        assert (first.document_id, first.text) == ("-4", "text of -4")
        assert (second.document_id, second.title) == ("seventeen", "Seventeen")
        assert second.metadata == {"odd": True, "faiss_id": 17}
        assert third.metadata == {"faiss_id": 900}


def test_plain_lines_are_texts(tmp_path: Path) -> None:
    write_index(tmp_path / "index.faiss", rows=300)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f'line {i} {{"text": 1}}\n' for i in range(300)))
    _import(tmp_path, texts)
    directory = CollectionStore(tmp_path / "data").directory("taken")
    with contextlib.closing(Snapshot.open(directory)) as snapshot:
        (chunk,) = snapshot.chunks([299])
        assert chunk is not None
        assert chunk.text == 'line 299 {"text": 1}'


GOOD = '{"text": "t"}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("few.jsonl", GOOD * 299, "299 lines for 300"),
        ("many.jsonl", GOOD * 301, "more than 300"),
        ("key.jsonl", GOOD * 4 + '{"text": "t", "x": 1}\n' + GOOD * 295, "line 5"),
        ("none.jsonl", GOOD * 4 + '{"title": "t"}\n' + GOOD * 295, "line 5"),
        ("nojson.jsonl", "text\n" * 300, "line 1"),
        ("twice.jsonl", '{"text": "t", "id": "a"}\n' * 300, "line 2"),
        ("ours.jsonl", '{"text": "t", "metadata": {"faiss_id": 1}}\n' * 300, "faiss_id"),
        ("bytes.txt", "\xff\xfe\n" * 300, "line 1: not UTF-8"),
    ],
)
def test_texts_that_do_not_fit_leave_nothing(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    write_index(tmp_path / "index.faiss", rows=300)
    texts = tmp_path / name
    texts.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidInput) as caught:
        _import(tmp_path, texts)
    assert words in caught.value.message
    assert caught.value.field == "texts"
    assert _nothing_is_left(tmp_path)


def test_a_collection_that_exists_stays(tmp_path: Path) -> None:
    write_index(tmp_path / "index.faiss")
    before = _import(tmp_path).manifest
    with pytest.raises(Conflict, match="exists already"):
        _import(tmp_path)
    directory = CollectionStore(tmp_path / "data").directory("taken")
    with contextlib.closing(Snapshot.open(directory)) as snapshot:
        assert snapshot.manifest == before


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"index\.faiss"):
        _import(tmp_path)
    write_index(tmp_path / "index.faiss", rows=300)
    with pytest.raises(NotFound, match=r"none\.txt"):
        _import(tmp_path, tmp_path / "none.txt")
    assert _nothing_is_left(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_refused_or_taken_whole(tmp_path: Path, seed: int) -> None:
    """Whatever faiss does with it happens in another process."""
    path = tmp_path / "index.faiss"
    write_index(path, ("IVF16,PQ4", "OPQ4,IVF16,PQ4,RFlat")[seed % 2], rows=300)
    damage(path, seed)
    try:
        _import(tmp_path)
    except (CorruptData, InvalidInput) as error:
        assert error.field == "file", seed
        assert _nothing_is_left(tmp_path), seed
    else:
        directory = CollectionStore(tmp_path / "data").directory("taken")
        Snapshot.open(directory).close()


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGXCPU", "SIGABRT"])
def test_a_reader_that_dies_of_the_file_blames_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    error = _death(monkeypatch, f"kill -{number.removeprefix('SIG')} $$", Path("some.faiss"))
    assert isinstance(error, CorruptData)
    assert "some.faiss" in error.message
    assert number in error.message


def test_other_deaths_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_death(monkeypatch, "exit 3", Path("some.faiss")), InternalError)
    assert isinstance(_death(monkeypatch, "kill -SEGV $$", None), InternalError)
    assert isinstance(_death(monkeypatch, "echo no json; echo []", None), InternalError)


def _death(monkeypatch: pytest.MonkeyPatch, script: str, reads: Path | None) -> RagrigError:
    """The error of a command that runs a script instead."""
    start = asyncio.create_subprocess_exec

    async def stand_in(*_: object, **options: object) -> asyncio.subprocess.Process:
        return await start("/bin/sh", "-c", script, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("coordinator.ingest.node_command.asyncio.create_subprocess_exec", stand_in)
    with pytest.raises(RagrigError) as caught:
        asyncio.run(run_index_command("index-import", {}, lambda *_: None, reads=reads))
    return caught.value


def test_row_ids_follow_faiss_ids(tmp_path: Path) -> None:
    ids = tuple(np.random.default_rng(5).permutation(5000)[:400].tolist())
    write_index(tmp_path / "index.faiss", ids=ids)
    _import(tmp_path)
    directory = CollectionStore(tmp_path / "data").directory("taken")
    with contextlib.closing(Snapshot.open(directory)) as snapshot:
        found = [c.metadata["faiss_id"] for c in snapshot.chunks(range(400)) if c is not None]
    assert found == sorted(ids)
