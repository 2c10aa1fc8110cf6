"""A flipped byte in any file of a real collection is found when it is opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.collections.snapshot import Snapshot
from ragschema.errors import CorruptData
from ragschema.storage.manifest import read_manifest
from retrieval_node.local import LocalSearcher
from tests.e2e.rigs import RunningRig


@pytest.fixture
def copied(appliance: RunningRig, tmp_path: Path) -> Path:
    """The IVF-PQ collection, to be damaged."""
    target = tmp_path / "sightings"
    shutil.copytree(appliance.data_dir / "collections" / "sightings", target)
    return target


def files_of(directory: Path) -> list[Path]:
    """The manifest and every file it names."""
    manifest = read_manifest(directory)
    assert manifest.index is not None
    refs = [manifest.index.file]
    for segment in manifest.segments:
        refs += [*segment.shards, segment.texts]
    return [directory / "manifest.json", *(directory / ref.path for ref in refs)]


def test_the_untouched_copy_opens(copied: Path) -> None:
    Snapshot.open(copied).close()
    LocalSearcher(copied, "fpga").close()


def test_any_damaged_file_is_named(copied: Path) -> None:
    files = files_of(copied)
    assert len(files) == 5  # manifest, index, two shards, texts
    for path in files:
        raw = path.read_bytes()
        for at in (0, len(raw) // 3, len(raw) // 2, len(raw) - 1):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x04]) + raw[at + 1 :])
            with pytest.raises(CorruptData) as caught:
                Snapshot.open(copied)
            assert path.name in caught.value.message
        path.write_bytes(raw)
    Snapshot.open(copied).close()


def test_a_retrieval_node_finds_the_damage_by_itself(copied: Path) -> None:
    for path in files_of(copied):
        if path.suffix != ".rag":
            continue
        raw = path.read_bytes()
        for at in (len(raw) // 2, len(raw) - 1):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1 :])
            with pytest.raises(CorruptData, match=path.name):
                LocalSearcher(copied, "fpga")
        path.write_bytes(raw)


def test_a_missing_or_shortened_file_is_named(copied: Path) -> None:
    for path in files_of(copied)[1:]:
        raw = path.read_bytes()
        path.write_bytes(raw[:-1])
        with pytest.raises(CorruptData, match=path.name):
            Snapshot.open(copied)
        path.unlink()
        with pytest.raises(CorruptData, match=path.name):
            Snapshot.open(copied)
        path.write_bytes(raw)
