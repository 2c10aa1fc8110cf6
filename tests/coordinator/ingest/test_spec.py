"""Specs and summaries as JSON."""

from __future__ import annotations

import json

import pytest

from coordinator.ingest.spec import (
    IngestSpec,
    IngestSummary,
    Skipped,
    spec_from_json,
    spec_to_json,
    summary_from_dict,
    summary_to_dict,
)
from ragschema.errors import InvalidInput
from ragschema.storage.manifest import ChunkingConfig
from ragschema.types import Metric

SPEC = IngestSpec("/data", "c", "127.0.0.1:1", 2, ("/docs",), chunking=ChunkingConfig(100, 20))


def test_specs_survive_the_way() -> None:
    full = IngestSpec(
        *("/d", "c", "h:1", 4, (), "/f.jsonl", Metric.L2, 16, 8, ChunkingConfig(64, 0)),
        prune=False,
        strict=True,
    )
    for spec in (SPEC, full):
        assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_shards": 0}, "num_shards"),
        ({"num_shards": "2"}, "num_shards"),
        ({"collection": "../x"}, "collection"),
        ({"sources": []}, "sources"),
        ({"metric": "hamming"}, "metric"),
        ({"nlist": 0}, "nlist"),
        ({"unknown": 1}, "unknown"),
        ({"prune": 1}, "prune"),
        ({"chunking": {"tokens": 8}}, "chunking.tokens"),
        ({"chunking": {"tokens": 100, "overlap": 51}}, "chunking.overlap"),
    ],
)
def test_wrong_specs_name_the_field(change: dict[str, object], field: str) -> None:
    body = json.loads(spec_to_json(SPEC)) | change
    with pytest.raises(InvalidInput) as caught:
        spec_from_json(json.dumps(body))
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"data_dir": 1}'])
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(InvalidInput):
        spec_from_json(text)


def test_summaries_survive_the_way() -> None:
    summary = IngestSummary(
        *(1, 2, 3, 4, (Skipped("a", "b"),), 5, 6, 7, "ivfpq", ("note",), 1.5),
    )
    assert summary_from_dict(summary_to_dict(summary)) == summary
    assert summary.read == 6
