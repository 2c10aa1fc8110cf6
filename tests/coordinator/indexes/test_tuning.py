from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.store import CollectionSpec, CollectionStore
from coordinator.indexes.importing import ImportRequest, import_faiss
from coordinator.indexes.tuning import Tuned, TuneRequest, tune_collection
from ragschema.errors import Conflict, IncompatibleRequest, InvalidInput, NotFound
from ragschema.storage.manifest import Manifest, commit_manifest, read_manifest
from ragschema.types import F32, Metric
from tests.coordinator.indexes.files import DIM, write_index


def _imported(tmp_path: Path, key: str) -> F32:
    vectors = write_index(tmp_path / "index.faiss", key)
    request = ImportRequest(tmp_path / "data", "taken", tmp_path / "index.faiss", None, 2)
    asyncio.run(import_faiss(request, lambda *_: None))
    return vectors


def _tuned(tmp_path: Path, recall: float, **more: object) -> Tuned:
    request = TuneRequest(tmp_path / "data", "taken", recall, sample=60)
    return asyncio.run(tune_collection(replace(request, **more), lambda *_: None))  # type: ignore[arg-type]


def _committed(tmp_path: Path) -> Manifest:
    return read_manifest(CollectionStore(tmp_path / "data").directory("taken"))


def test_a_target_within_reach_is_set_and_the_curve_kept(tmp_path: Path) -> None:
    _imported(tmp_path, "IVF16,PQ4,RFlat")
    tuned = _tuned(tmp_path, 0.95)
    assert tuned.measured.reached
    assert tuned.measured.recall >= 0.95
    manifest = _committed(tmp_path)
    assert manifest == tuned.manifest
    assert manifest.generation == 2
    index = manifest.index
    assert index is not None
    assert index.nprobe == tuned.measured.nprobe
    assert index.refine_factor is not None
    codes = [p.codes_per_query for p in index.curve]
    assert codes == sorted(codes)
    assert {p.nprobe for p in index.curve} >= {1, 2}
    assert {p.refine_factor for p in index.curve} >= {None, 2, 16}
    low = _tuned(tmp_path, 0.2).manifest.index
    assert low is not None
    assert (low.nprobe, low.refine_factor) == (1, 1), "vectors stay in use"


def test_out_of_reach_the_best_is_set(tmp_path: Path) -> None:
    vectors = _imported(tmp_path, "IVF16,PQ4")
    queries, truth = tmp_path / "q.npy", tmp_path / "t.npy"
    rng = np.random.default_rng(3)
    asked = (vectors[:50] + 0.1 * rng.normal(size=(50, DIM))).astype(np.float32)
    np.save(queries, asked)
    apart = ((asked[:, None, :] - vectors[None, :, :]) ** 2).sum(axis=2)
    np.save(truth, np.argsort(apart, axis=1)[:, :10])
    tuned = _tuned(tmp_path, 0.999, queries=queries, truth=truth)
    assert not tuned.measured.reached
    assert not tuned.measured.refines
    best = max(p.recall_at_10 for p in tuned.measured.curve)
    assert tuned.measured.recall == best < 0.999
    assert _committed(tmp_path).index == tuned.manifest.index


def test_without_stored_vectors_the_fix_is_named(tmp_path: Path) -> None:
    _imported(tmp_path, "IVF16,PQ4")
    before = _committed(tmp_path)
    with pytest.raises(IncompatibleRequest) as caught:
        _tuned(tmp_path, 0.9)
    assert "--truth" in (caught.value.hint or "")
    assert _committed(tmp_path) == before


def test_an_exact_collection_has_nothing_to_tune(tmp_path: Path) -> None:
    store = CollectionStore(tmp_path / "data")
    store.create("taken", CollectionSpec(8, Metric.L2, 1, None))
    with pytest.raises(IncompatibleRequest, match="recall is 1"):
        _tuned(tmp_path, 0.9)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    _imported(tmp_path, "IVF16,PQ4,RFlat")
    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((5, DIM + 1), dtype=np.float32))
    noise = tmp_path / "noise.npy"
    noise.write_bytes(b"noise")
    for path, error in ((wide, InvalidInput), (noise, InvalidInput), (tmp_path / "no", NotFound)):
        with pytest.raises(error) as caught:
            _tuned(tmp_path, 0.9, queries=path)
        assert caught.value.field == "queries"
    with pytest.raises(InvalidInput, match="truth without queries"):
        _tuned(tmp_path, 0.9, truth=wide)
    with pytest.raises(NotFound):
        asyncio.run(tune_collection(TuneRequest(tmp_path, "none", 0.9), lambda *_: None))


def test_nobody_tunes_while_another_writes(tmp_path: Path) -> None:
    _imported(tmp_path, "IVF16,PQ4,RFlat")
    with CollectionStore(tmp_path / "data").lock("taken"), pytest.raises(Conflict):
        _tuned(tmp_path, 0.9)


def test_a_standing_wish_follows_the_new_one(tmp_path: Path) -> None:
    _imported(tmp_path, "IVF16,PQ4,RFlat")
    directory = CollectionStore(tmp_path / "data").directory("taken")
    commit_manifest(directory, replace(_committed(tmp_path), recall=0.8))
    assert _tuned(tmp_path, 0.97, k=5).manifest.recall == 0.97
