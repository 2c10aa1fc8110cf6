"""An embedder shared by the tests of ingestion, and a way to run it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.collections.snapshot import Snapshot
from coordinator.collections.store import CollectionStore
from coordinator.ingest.run import ingest
from coordinator.ingest.spec import IngestSpec, IngestSummary
from ragschema.storage.manifest import ChunkingConfig
from tests.fakes import HashingLlm, serving_in_threads

CHUNKING = ChunkingConfig(32, 8)


@pytest.fixture(scope="session")
def shared_llm() -> Iterator[tuple[HashingLlm, str]]:
    servicer = HashingLlm()
    with serving_in_threads(servicer) as address:
        yield servicer, address


@pytest.fixture
def llm(shared_llm: tuple[HashingLlm, str]) -> HashingLlm:
    servicer, _ = shared_llm
    servicer.fingerprint, servicer.embedded, servicer.outages = "hash-1", 0, 0
    servicer.max_tokens = 512
    return servicer


class Bench:
    """A data directory, a folder of documents, and ingestion between them."""

    def __init__(self, tmp_path: Path, address: str) -> None:
        self.data_dir = tmp_path / "data"
        self.docs = tmp_path / "docs"
        self.docs.mkdir()
        self.store = CollectionStore(self.data_dir)
        self.address = address
        self.phases: list[str] = []

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def spec(self, **changes: Any) -> IngestSpec:
        values: dict[str, Any] = {
            "data_dir": str(self.data_dir),
            "collection": "c",
            "llm_address": self.address,
            "num_shards": 2,
            "sources": (str(self.docs),),
            "chunking": CHUNKING,
        }
        return IngestSpec(**(values | changes))

    async def ingest(self, **changes: Any) -> IngestSummary:
        def progress(phase: str, done: int, total: int) -> None:
            assert 0 <= done <= total
            self.phases.append(phase)

        return await ingest(self.spec(**changes), progress)

    def open(self) -> Snapshot:
        return Snapshot.open(self.store.directory("c"))

    def document_ids(self) -> list[str]:
        snapshot = self.open()
        try:
            return [d.document_id for d in snapshot.documents(0, 10_000)]
        finally:
            snapshot.close()

    def texts(self) -> list[str]:
        """Texts of the live chunks."""
        snapshot = self.open()
        try:
            found = snapshot.chunks(range(snapshot.manifest.next_row_id))
            return sorted(c.text for c in found if c)
        finally:
            snapshot.close()


@pytest.fixture
def bench(tmp_path: Path, llm: HashingLlm, shared_llm: tuple[HashingLlm, str]) -> Bench:
    return Bench(tmp_path, shared_llm[1])
