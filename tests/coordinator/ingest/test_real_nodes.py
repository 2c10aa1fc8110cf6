"""The real LLM node, the real index builder and the real search over what they made."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.ingest.chunking import chunk_document
from coordinator.ingest.embedder import EmbeddingNode
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers import parse_file
from coordinator.ingest.run import ingest
from coordinator.ingest.spec import IngestSpec
from coordinator.ingest.stdlib_corpus import write_corpus
from ragschema.storage.blockfile import read_blockfile
from ragschema.storage.manifest import ChunkingConfig

START_S = 120.0


@pytest.fixture(scope="module")
def llm_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("torch")
    ready = tmp_path_factory.mktemp("llm") / "ready"
    command = [sys.executable, "-m", "llm_node", "serve", "--roles", "embed", "--port", "0"]
    with subprocess.Popen(
        [*command, "--ready-file", str(ready)], stderr=subprocess.DEVNULL
    ) as node:
        try:
            give_up_s = time.monotonic() + START_S
            while not ready.exists():
                assert node.poll() is None, "the LLM node ended"
                assert time.monotonic() < give_up_s, "the LLM node does not get ready"
                time.sleep(0.05)
            yield str(json.loads(ready.read_text())["address"])
        finally:
            node.terminate()
            node.wait(30)


async def test_what_is_ingested_is_found_by_meaning(llm_address: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    facts = {
        "bees": "Honeybees collect nectar from flowers and turn it into honey.",
        "rust": "Iron turns into iron oxide when it meets water and oxygen.",
        "moon": "Tides of the sea are caused by the pull of the moon.",
    }
    for name, text in facts.items():
        (docs / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
    spec = IngestSpec(str(tmp_path / "data"), "c", llm_address, 2, (str(docs),))
    summary = await ingest(spec, lambda *_: None)
    assert (summary.added, summary.index) == (3, "exact")
    directory = tmp_path / "data" / "collections" / "c"
    snapshot = Snapshot.open(directory)
    assert snapshot.manifest.embedder is not None
    rows: dict[int, np.ndarray] = {}
    for shard in snapshot.manifest.segments[0].shards:
        arrays = read_blockfile(directory / shard.path, "shard").arrays
        rows.update(zip(arrays["ids"].tolist(), arrays["vectors"], strict=True))
    node = EmbeddingNode(llm_address)
    question = (await node.embed(["What makes the ocean rise and fall?"], 384))[0]
    await node.close()
    best = max(rows, key=lambda row: float(rows[row] @ question))
    chunk = snapshot.chunks([best])[0]
    assert chunk is not None
    assert chunk.document_id == "docs/moon.md"
    assert (await ingest(spec, lambda *_: None)).unchanged == 3
    snapshot.close()


async def test_the_demo_corpus_has_enough_chunks_that_the_model_reads_whole(
    llm_address: str, tmp_path: Path
) -> None:
    write_corpus(tmp_path)
    paths = sorted(tmp_path.glob("*.md"))
    documents = [parse_file(p, p.name, ParseLimits())[0] for p in paths]
    node = EmbeddingNode(llm_address)
    model = await node.model()
    borders = await node.tokenize([d.text for d in documents])
    await node.close()
    chunks = [
        chunk
        for document, offsets in zip(documents, borders, strict=True)
        for chunk in chunk_document(document, offsets, ChunkingConfig())
    ]
    assert 1500 <= len(chunks) <= 2500
    assert max(c.tokens for c in chunks) <= 200 < (model.max_input_tokens or 0)


async def test_token_borders_of_long_texts_join_without_a_seam(llm_address: str) -> None:
    line = "Füße und naïve Wörter, 日本語 too.\n"
    node = EmbeddingNode(llm_address)
    one, many = await node.tokenize([line, line * 4000])
    await node.close()
    starts = np.arange(4000, dtype=np.int32) * len(line)
    expected = (one[None, :, :] + starts[:, None, None]).reshape(-1, 2)
    np.testing.assert_array_equal(many, expected)


async def test_a_rerun_after_a_stop_embeds_only_what_is_missing(
    llm_address: str, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(60):
        (docs / f"{i}.txt").write_text(f"Paragraph {i} tells about subject number {i * i}. " * 3)
    spec = IngestSpec(str(tmp_path / "data"), "c", llm_address, 1, (str(docs),))
    seen: list[tuple[str, int]] = []
    run = asyncio.create_task(ingest(spec, lambda phase, done, _: seen.append((phase, done))))
    while not any(phase == "embed" and done > 0 for phase, done in seen):
        assert not run.done()
        await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.wait([run])
    again: list[tuple[str, int]] = []
    summary = await ingest(spec, lambda phase, done, _: again.append((phase, done)))
    assert summary.added == 60
    first = next(done for phase, done in again if phase == "embed")
    assert first > 0
