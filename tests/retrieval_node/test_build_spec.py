from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragschema.errors import InvalidInput, NotFound
from ragschema.types import Metric
from retrieval_node.build_spec import load_spec

GOOD = {
    "collection_dir": "c",
    "segment_id": "seg-000001",
    "row_start": 0,
    "vectors": "v.npy",
    "metric": "cosine",
    "num_shards": 2,
    "index": {"train": {"id": "idx-000001", "nlist": None, "m": 48, "seed": 3, "refine": True}},
    "refine": True,
}


def _load(tmp_path: Path, **changes: object):  # type: ignore[no-untyped-def]
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(GOOD | changes))
    return load_spec(path)


def test_reads_every_form(tmp_path: Path) -> None:
    spec = _load(tmp_path)
    assert spec.metric is Metric.COSINE
    assert spec.index is not None
    assert spec.index.train is not None
    assert (spec.index.train.m, spec.index.train.seed) == (48, 3)
    assert _load(tmp_path, index=None).index is None
    existing = _load(tmp_path, index={"existing": "index/idx-000001.rag"}).index
    assert existing is not None
    assert existing.existing == "index/idx-000001.rag"
    assert existing.residual
    assert (spec.threads, spec.vector_type) == (None, None)
    wide = _load(tmp_path, threads=3, vector_type="float32")
    assert (wide.threads, wide.vector_type) == (3, "float32")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"segment_id": "../x"}, "segment_id"),
        ({"metric": "hamming"}, "metric"),
        ({"num_shards": 0}, "num_shards"),
        ({"num_shards": "2"}, "num_shards"),
        ({"extra": 1}, "extra"),
        ({"threads": 0}, "threads"),
        ({"vector_type": "float64"}, "vector_type"),
        ({"index": {"train": {"id": "idx-000001", "rotate": 1}}}, "index.train.rotate"),
        ({"index": {"existing": "a", "residual": "no"}}, "index.residual"),
        ({"index": {"train": {"id": "../../x"}}}, "index.train.id"),
        ({"index": {}}, "index"),
        ({"index": {"existing": "a", "train": {"id": "idx-000001"}}}, "index"),
    ],
)
def test_wrong_values_name_their_field(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        _load(tmp_path, **changes)
    assert caught.value.field == field


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_spec(tmp_path / "none.json")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(InvalidInput):
        load_spec(tmp_path / "spec.json")
