"""Ingestion end to end with the real index builder: what is added, changed, dropped and skipped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.ingest.document import ParsedDocument, write_documents_file
from coordinator.types import FilterTerm
from ragschema.errors import (
    Conflict,
    CorruptData,
    IncompatibleRequest,
    InvalidInput,
    NotFound,
    Unavailable,
)
from ragschema.storage.blockfile import read_blockfile
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import Metric
from tests.coordinator.ingest.conftest import Bench
from tests.fakes import HashingLlm


def stored_vectors(bench: Bench) -> dict[int, np.ndarray]:
    """Row id -> vector, over every shard of the current snapshot."""
    snapshot = bench.open()
    found: dict[int, np.ndarray] = {}
    for segment in snapshot.manifest.segments:
        for shard in segment.shards:
            arrays = read_blockfile(bench.store.directory("c") / shard.path, "shard").arrays
            rows = arrays["ids"].astype(np.int64) + segment.row_start
            found.update(zip(rows.tolist(), arrays["vectors"], strict=True))
    assert sorted(found) == list(range(snapshot.manifest.next_row_id))
    snapshot.close()
    return found


def check_vectors_match_texts(bench: Bench, llm: HashingLlm, atol: float) -> None:
    """Every live row's vector is that of its own text, wherever compaction moved it."""
    snapshot = bench.open()
    vectors = stored_vectors(bench)
    live = 0
    for chunk in snapshot.chunks(range(snapshot.manifest.next_row_id)):
        if chunk is not None:
            path = " > ".join(dict.fromkeys((chunk.title, *chunk.headings)))
            expected = llm.vector(f"{path}\n{chunk.text}")
            np.testing.assert_allclose(vectors[chunk.row_id], expected, atol=atol)
            live += 1
    assert live == snapshot.manifest.live_rows > 0
    snapshot.close()


async def test_a_folder_becomes_an_exact_collection(bench: Bench, llm: HashingLlm) -> None:
    bench.write("a.md", "---\nyear: 2020\n---\n# Apples\n\nApples are red.\n\n## Inner\n\nSeeds.")
    bench.write("sub/b.txt", "Bananas are yellow. " * 40)
    bench.write("sub/c.py", '"""Cherries."""\n\ndef pit():\n    """Removes the stone."""\n')
    bench.write(".hidden/secret.md", "hidden")
    bench.write("picture.png", b"\x89PNG")
    summary = await bench.ingest()
    assert (summary.added, summary.updated, summary.unchanged, summary.deleted) == (3, 0, 0, 0)
    assert (summary.skipped, summary.index, summary.generation) == ((), "exact", 1)
    assert any("kept exact" in note for note in summary.notes)
    assert any("1 .png" in note for note in summary.notes)
    assert bench.document_ids() == ["docs/a.md", "docs/sub/b.txt", "docs/sub/c.py"]
    snapshot = bench.open()
    assert snapshot.manifest.metric is Metric.COSINE
    assert snapshot.manifest.num_shards == 2
    assert snapshot.manifest.chunking == ChunkingConfig(32, 8)
    assert snapshot.document("docs/a.md").metadata == {"year": 2020}
    assert snapshot.filter_bitmap((FilterTerm("year", "in", (2020,)),)).any()
    inner = next(c for c in snapshot.chunks(range(20)) if c and "Seeds" in c.text)
    assert inner.headings[:1] == ("Apples",)
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=1e-6)
    assert bench.phases[0] == "read"
    assert "embed" in bench.phases
    assert not (bench.store.directory("c") / "staging").exists()


async def test_a_second_run_over_the_same_files_changes_nothing(
    bench: Bench, llm: HashingLlm
) -> None:
    bench.write("a.md", "# A\n\ntext")
    bench.write("r.jsonl", '{"id": "one", "text": "first"}\n{"text": "second"}\n')
    first = await bench.ingest()
    assert first.added == 3
    llm.embedded = 0
    again = await bench.ingest()
    assert (again.added, again.updated, again.unchanged) == (0, 0, 3)
    assert (again.generation, llm.embedded) == (first.generation, 0)
    os.utime(bench.docs / "a.md", (1, 1))
    assert (await bench.ingest()).unchanged == 3


async def test_changed_documents_are_replaced_and_vanished_ones_deleted(
    bench: Bench, llm: HashingLlm
) -> None:
    for name in "abcdefgh":
        bench.write(f"{name}.md", f"# {name}\n\noriginal {name}")
    await bench.ingest()
    bench.write("b.md", "# b\n\nrewritten b")
    (bench.docs / "c.md").unlink()
    bench.write("z.md", "# z\n\nbrand new")
    summary = await bench.ingest()
    counts = (summary.added, summary.updated, summary.unchanged, summary.deleted)
    assert counts == (1, 1, 6, 1)
    texts = bench.texts()
    assert not any("original b" in t or "original c" in t for t in texts)
    assert any("rewritten b" in t for t in texts)
    assert "docs/c.md" not in bench.document_ids()
    snapshot = bench.open()
    assert snapshot.manifest.live_documents == 8
    assert len(snapshot.manifest.segments) == 2
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=1e-6)


async def test_without_prune_vanished_documents_stay(bench: Bench) -> None:
    bench.write("a.md", "a text")
    bench.write("b.md", "b text")
    await bench.ingest()
    (bench.docs / "a.md").unlink()
    summary = await bench.ingest(prune=False)
    assert summary.deleted == 0
    assert bench.document_ids() == ["docs/a.md", "docs/b.md"]
    assert (await bench.ingest()).deleted == 1


async def test_pruning_spares_other_sources_and_broken_files(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.md").write_text("from another folder")
    single = tmp_path / "single.txt"
    single.write_text("named itself")
    bench.write("a.md", "a text")
    bench.write("b.md", "b text")
    await bench.ingest(sources=(str(bench.docs), str(other), str(single)))
    bench.write("b.md", b"now\0binary")
    summary = await bench.ingest()
    assert [s.path for s in summary.skipped] == [str(bench.docs / "b.md")]
    assert summary.deleted == 0
    everything = ["docs/a.md", "docs/b.md", "other/o.md", "single.txt"]
    assert bench.document_ids() == everything


async def test_a_folder_that_lost_its_last_document_is_emptied(bench: Bench) -> None:
    bench.write("a.md", "a text")
    await bench.ingest()
    (bench.docs / "a.md").unlink()
    summary = await bench.ingest()
    assert (summary.deleted, summary.live_rows) == (1, 0)
    assert bench.document_ids() == []
    bench.write("a.md", "a text")
    assert (await bench.ingest()).added == 1
    assert bench.document_ids() == ["docs/a.md"]


async def test_records_that_leave_a_file_leave_the_collection(bench: Bench) -> None:
    bench.write("r.jsonl", "".join(f'{{"id": {i}, "text": "record {i}"}}\n' for i in range(4)))
    await bench.ingest()
    bench.write("r.jsonl", '{"id": 1, "text": "record 1"}\n{"id": 9, "text": "record 9"}\n')
    summary = await bench.ingest()
    assert (summary.added, summary.unchanged, summary.deleted) == (1, 1, 3)
    assert bench.document_ids() == ["docs/r.jsonl#1", "docs/r.jsonl#9"]


async def test_a_deleted_document_comes_back_when_its_source_is_ingested_again(
    bench: Bench,
) -> None:
    bench.write("r.jsonl", '{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n')
    await bench.ingest()
    bench.store.delete_documents("c", ["docs/r.jsonl#2"])
    assert bench.texts() == ["one"]
    summary = await bench.ingest()
    assert (summary.added, summary.unchanged) == (1, 1)
    assert bench.texts() == ["one", "two"]


async def test_unreadable_files_are_named_and_skipped(bench: Bench, tmp_path: Path) -> None:
    bench.write("good.md", "good text")
    bench.write("empty.md", "")
    bench.write("blank.txt", " \n ")
    bench.write("binary.txt", b"\x00\x01\x02")
    bench.write("broken.pdf", b"%PDF-1.7 nothing else")
    bench.write("broken.docx", b"PK\x03\x04 nothing else")
    bench.write("bomb.html", "<div>" * 100_000)
    bench.write("deep.json", "[" * 100_000)
    bench.write("latin.txt", "Grüße".encode("latin-1"))
    (bench.docs / "dangling.md").symlink_to(tmp_path / "nowhere")
    os.mkfifo(bench.docs / "pipe.txt")
    summary = await bench.ingest(sources=(str(bench.docs), str(tmp_path / "absent")))
    reasons = {Path(s.path).name: s.reason for s in summary.skipped}
    assert set(reasons) == {
        *("empty.md", "blank.txt", "binary.txt", "broken.pdf", "broken.docx", "bomb.html"),
        *("deep.json", "dangling.md", "pipe.txt", "absent"),
    }
    assert "binary" in reasons["binary.txt"]
    assert "deep" in reasons["bomb.html"]
    assert reasons["empty.md"] == "is empty"
    assert summary.added == 2
    assert any("Latin-1" in note for note in summary.notes)
    assert bench.document_ids() == ["docs/good.md", "docs/latin.txt"]


async def test_nothing_readable_makes_no_collection(bench: Bench) -> None:
    bench.write("a.md", "")
    summary = await bench.ingest()
    assert (summary.read, summary.generation, len(summary.skipped)) == (0, 0, 1)
    assert bench.store.names() == []
    assert not bench.store.directory("c").exists()


async def test_two_files_of_one_name_do_not_replace_each_other(
    bench: Bench, tmp_path: Path
) -> None:
    first, second = bench.write("x/n.txt", "first"), bench.write("y/n.txt", "second")
    summary = await bench.ingest(sources=(str(first), str(second)))
    assert summary.added == 1
    assert "'n.txt'" in summary.skipped[0].reason
    assert bench.texts() == ["first"]


async def test_already_parsed_documents(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    documents = [
        ParsedDocument("one", "One", "# H\n\ntext of one", (), {"n": 1, "ok": True}, "upload:one"),
        ParsedDocument("two", "Two", "text of two \ud800 \0", (), {}, "upload:two"),
        ParsedDocument("none", "None", "  "),
    ]
    write_documents_file(path, documents)
    call = {"sources": (), "documents_file": str(path), "prune": False}
    summary = await bench.ingest(**call)
    assert summary.added == 2
    assert [(s.path, s.reason) for s in summary.skipped] == [("none", "holds no text")]
    snapshot = bench.open()
    assert snapshot.document("one").metadata == {"n": 1, "ok": True}
    assert snapshot.document("one").source == "upload:one"
    snapshot.close()
    write_documents_file(path, [ParsedDocument("two", "Two", "another text")])
    summary = await bench.ingest(**call)
    assert (summary.updated, summary.deleted) == (1, 0)
    assert bench.document_ids() == ["one", "two"]


def write_many(bench: Bench, documents: int, prefix: str = "d") -> None:
    for i in range(documents):
        body = " ".join(f"{prefix}{i}w{j} topic{i % 7}" for j in range(60))
        bench.write(f"{prefix}{i:04d}.txt", body)


async def test_a_collection_grows_into_ivfpq_and_is_compacted(
    bench: Bench, llm: HashingLlm
) -> None:
    write_many(bench, 190)
    exact = await bench.ingest()
    assert exact.index == "exact"
    assert 700 < exact.live_rows < 1000
    write_many(bench, 130, "e")
    trained = await bench.ingest()
    assert trained.index == "ivfpq"
    assert trained.unchanged == 190
    snapshot = bench.open()
    assert len(snapshot.manifest.segments) == 1
    assert snapshot.centroids is not None
    index = snapshot.manifest.index
    assert index is not None
    assert index.refine_factor is not None
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=2e-3)

    # A later commit encodes with the index that is there.
    bench.write("late.txt", "a late arrival")
    later = await bench.ingest()
    snapshot = bench.open()
    assert snapshot.manifest.index == index
    assert [s.row_count for s in snapshot.manifest.segments] == [trained.live_rows, 1]
    assert later.live_rows == trained.live_rows + 1
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=2e-3)

    # Losing a third of the rows rewrites the rest.
    for path in sorted(bench.docs.glob("d*.txt"))[:110]:
        path.unlink()
    llm.embedded = 0
    compacted = await bench.ingest()
    snapshot = bench.open()
    manifest = snapshot.manifest
    assert compacted.deleted == 110
    assert manifest.tombstones is None
    assert manifest.next_row_id == manifest.live_rows == compacted.live_rows
    assert len(manifest.segments) == 1
    assert llm.embedded == 0
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=2e-3)
    assert len(bench.document_ids()) == 190 + 130 + 1 - 110

    # Fewer rows than an index needs are exact again.
    for path in sorted(bench.docs.glob("*.txt"))[:80]:
        path.unlink()
    shrunk = await bench.ingest()
    assert shrunk.index == "exact"
    check_vectors_match_texts(bench, llm, atol=2e-3)


async def test_many_small_commits_are_merged(bench: Bench, llm: HashingLlm) -> None:
    for i in range(9):
        bench.write(f"{i}.txt", f"number {i}")
        await bench.ingest()
    snapshot = bench.open()
    assert len(snapshot.manifest.segments) == 1
    assert snapshot.manifest.live_rows == 9
    snapshot.close()
    check_vectors_match_texts(bench, llm, atol=1e-6)
    segments = bench.store.directory("c") / "segments"
    assert len(list(segments.iterdir())) <= 9


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
async def test_other_metrics(bench: Bench, metric: Metric) -> None:
    bench.write("a.txt", "some text")
    await bench.ingest(metric=metric, num_shards=3)
    snapshot = bench.open()
    assert snapshot.manifest.metric is metric
    assert len(snapshot.manifest.segments[0].shards) == 3
    snapshot.close()
    with pytest.raises(IncompatibleRequest) as caught:
        await bench.ingest(metric=Metric.COSINE)
    assert caught.value.field == "metric"


async def test_another_model_is_refused(bench: Bench, llm: HashingLlm) -> None:
    bench.write("a.txt", "some text")
    await bench.ingest()
    llm.fingerprint = "hash-2"
    with pytest.raises(IncompatibleRequest, match="hash-1") as caught:
        await bench.ingest()
    assert caught.value.hint
    assert bench.texts() == ["some text"]


async def test_settings_no_data_could_make_right(bench: Bench, llm: HashingLlm) -> None:
    bench.write("a.txt", "some text")
    with pytest.raises(InvalidInput, match="m = 7") as caught:
        await bench.ingest(m=7)
    assert caught.value.field == "m"
    llm.max_tokens = 100
    with pytest.raises(InvalidInput, match="at most 98"):
        await bench.ingest(chunking=ChunkingConfig(99, 0))
    assert bench.store.names() == []


async def test_other_chunking_cuts_again(bench: Bench, llm: HashingLlm) -> None:
    bench.write("a.txt", "word " * 100)
    first = await bench.ingest()
    second = await bench.ingest(chunking=ChunkingConfig(64, 0))
    assert (second.updated, second.unchanged) == (1, 0)
    assert second.chunks < first.chunks
    # Without a wish, the collection's own chunking goes on.
    assert (await bench.ingest(chunking=None)).unchanged == 1


async def test_a_wanted_recall_is_kept_until_another_is_given(bench: Bench) -> None:
    bench.write("a.txt", "one text")
    assert (await bench.ingest(recall=0.9)).generation == 1
    assert bench.open().manifest.recall == 0.9
    bench.write("b.txt", "another text")
    assert (await bench.ingest()).generation == 2
    assert bench.open().manifest.recall == 0.9
    # Nothing but the recall changes, and that only once.
    for _ in range(2):
        assert (await bench.ingest(recall=0.5)).generation == 3
    assert bench.open().manifest.recall == 0.5
    assert bench.document_ids() == ["docs/a.txt", "docs/b.txt"]


async def test_no_node_is_explained(bench: Bench) -> None:
    bench.write("a.txt", "some text")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as caught:
        await bench.ingest(llm_address="127.0.0.1:1")
    assert "ragrig up" in str(caught.value.hint)


async def test_a_node_that_restarts_is_waited_for(bench: Bench, llm: HashingLlm) -> None:
    bench.write("a.txt", "some text")
    llm.outages = 3
    assert (await bench.ingest()).added == 1
    assert llm.outages == 0


async def test_a_damaged_collection_is_not_built_upon(bench: Bench) -> None:
    bench.write("a.txt", "some text")
    await bench.ingest()
    shard = next((bench.store.directory("c") / "segments").rglob("shard-0.rag"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    bench.write("b.txt", "more")
    with pytest.raises(CorruptData, match="shard-0"):
        await bench.ingest()


async def test_two_ingestions_at_once_on_one_collection(bench: Bench) -> None:
    bench.write("a.txt", "some text")
    results = await asyncio.gather(bench.ingest(), bench.ingest(), return_exceptions=True)
    refused = [r for r in results if isinstance(r, Conflict)]
    assert len(refused) == 1
    assert str(os.getpid()) in refused[0].message
    assert bench.texts() == ["some text"]
    # Another collection is nobody's business.
    await asyncio.gather(bench.ingest(collection="x"), bench.ingest(collection="y"))
    assert bench.store.names() == ["c", "x", "y"]


async def test_a_cancelled_run_leaves_everything_as_it_was_and_the_next_goes_on(
    bench: Bench, llm: HashingLlm
) -> None:
    bench.write("a.txt", "word " * 2000)
    run = asyncio.create_task(bench.ingest())
    while "encode" not in bench.phases and "write" not in bench.phases:
        assert not run.done()
        await asyncio.sleep(0.005)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    with pytest.raises(NotFound):
        bench.open()
    embedded, llm.embedded = llm.embedded, 0
    summary = await bench.ingest()
    assert summary.chunks == embedded
    assert llm.embedded == 0


async def test_a_manifest_of_an_empty_collection_made_beforehand_is_kept_to(
    bench: Bench,
) -> None:
    from coordinator.collections.store import CollectionSpec

    spec = CollectionSpec(32, Metric.L2, 3, None, ChunkingConfig(40, 0))
    bench.store.create("c", spec)
    bench.write("a.txt", "word " * 100)
    summary = await bench.ingest(chunking=None, metric=None)
    assert summary.generation == 2
    snapshot = Snapshot.open(bench.store.directory("c"))
    manifest = snapshot.manifest
    assert (manifest.metric, manifest.num_shards) == (Metric.L2, 3)
    assert manifest.chunking == ChunkingConfig(40, 0)
    assert manifest.embedder is not None
    assert manifest.embedder.fingerprint == "hash-1"
    snapshot.close()
