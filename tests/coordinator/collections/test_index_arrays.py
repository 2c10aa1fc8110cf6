from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.collections.commit import commit
from coordinator.collections.snapshot import Snapshot
from ragschema.errors import CorruptData
from ragschema.storage.blockfile import write_blockfile
from ragschema.storage.index_arrays import read_index_arrays
from ragschema.storage.manifest import IndexRef, Manifest, file_ref, read_manifest
from ragschema.types import F32
from tests.coordinator.collections.making import SPEC, Doc, make_collection

CENTROIDS = np.arange(9, dtype=np.float32).reshape(3, 3)
ROTATION = np.ones((3, SPEC.dim), dtype=np.float32)
OFFSET = np.full(3, 0.5, dtype=np.float32)


def _with_index(tmp_path: Path, rotated: bool, arrays: dict[str, F32]) -> tuple[Path, Manifest]:
    directory = make_collection(tmp_path, "books", [Doc("a", ["one", "two"])]).directory("books")
    path = directory / "index" / "idx-000009.rag"
    path.parent.mkdir(exist_ok=True)
    write_blockfile(path, "ivfpq-index", {}, arrays)
    ref = IndexRef(file_ref(directory, path), 3, 1, 1, None, rotated=rotated)
    old = read_manifest(directory)
    manifest = replace(old, generation=old.generation + 1, index=ref)
    commit(directory, manifest, old)
    return directory, manifest


def test_a_snapshot_knows_how_queries_get_to_lists(tmp_path: Path) -> None:
    arrays = {"centroids": CENTROIDS, "rotation": ROTATION, "offset": OFFSET}
    directory, _ = _with_index(tmp_path, True, arrays)
    snapshot = Snapshot.open(directory)
    for found, wanted in (
        (snapshot.centroids, CENTROIDS), (snapshot.rotation, ROTATION), (snapshot.offset, OFFSET),
    ):  # fmt: skip
        assert found is not None
        np.testing.assert_array_equal(found, wanted)
    snapshot.close()


def test_without_an_index_there_is_nothing(tmp_path: Path) -> None:
    directory = make_collection(tmp_path, "books", [Doc("a", ["one"])]).directory("books")
    snapshot = Snapshot.open(directory)
    assert (snapshot.centroids, snapshot.rotation, snapshot.offset) == (None, None, None)
    snapshot.close()


@pytest.mark.parametrize(
    ("rotated", "arrays"),
    [
        (True, {"centroids": CENTROIDS}),
        (False, {"centroids": CENTROIDS, "rotation": ROTATION}),
        (False, {"centroids": CENTROIDS}),
        (True, {"centroids": CENTROIDS, "rotation": ROTATION[:, :-1]}),
        (True, {"centroids": CENTROIDS[:-1], "rotation": ROTATION}),
        (True, {"rotation": ROTATION}),
        (True, {"centroids": CENTROIDS, "rotation": ROTATION, "offset": OFFSET[:-1]}),
        (True, {"centroids": CENTROIDS.astype(np.float16), "rotation": ROTATION}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, rotated: bool, arrays: dict[str, F32]
) -> None:
    directory, manifest = _with_index(tmp_path, rotated, arrays)
    with pytest.raises(CorruptData, match=r"idx-000009\.rag"):
        read_index_arrays(directory, manifest)
