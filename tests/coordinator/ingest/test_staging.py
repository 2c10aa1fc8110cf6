"""Staged vectors: found again, told apart, and no harm when the file is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coordinator.ingest.staging import VectorStaging, document_key
from ragschema.storage.manifest import ChunkingConfig

VECTORS = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_vectors_are_found_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    staging = VectorStaging(path, 4)
    staging.put([("a", 0), ("a", 1)], VECTORS)
    # A killed process closes nothing.
    again = VectorStaging(path, 4)
    np.testing.assert_array_equal(again.get("a", 1), VECTORS[1])
    assert again.get("a", 2) is None
    assert again.get("b", 0) is None
    staging.close()
    again.close()


def test_vectors_of_another_dimension_are_not_used(tmp_path: Path) -> None:
    staging = VectorStaging(tmp_path / "v.sqlite", 4)
    staging.put([("a", 0)], VECTORS[:1])
    staging.close()
    other = VectorStaging(tmp_path / "v.sqlite", 8)
    assert other.get("a", 0) is None
    other.close()


def test_a_broken_file_is_started_afresh(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"this is no database, but long enough to look at" * 100)
    staging = VectorStaging(path, 4)
    staging.put([("a", 0)], VECTORS[:1])
    assert staging.get("a", 0) is not None
    staging.close()


def test_keys_tell_text_cut_and_model_apart() -> None:
    keys = {
        document_key("h", ChunkingConfig(200, 32), "m"),
        document_key("i", ChunkingConfig(200, 32), "m"),
        document_key("h", ChunkingConfig(200, 16), "m"),
        document_key("h", ChunkingConfig(100, 32), "m"),
        document_key("h", ChunkingConfig(200, 32), "n"),
    }
    assert len(keys) == 5
