"""POST /v1/search: what it asks the pipeline, what it answers, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coordinator.rest.replies import SearchReply
from coordinator.types import FilterTerm, SearchSpec
from ragschema import errors as e
from tests.coordinator.rest.conftest import Rig

VECTOR = [0.5, -1, 2.25, 0]


def last_spec(rig: Rig) -> SearchSpec:
    spec = rig.runtime.pipeline.specs[-1]
    assert isinstance(spec, SearchSpec)
    return spec


async def test_text_search_answers_what_the_pipeline_found(rig: Rig) -> None:
    response = await rig.post("/v1/search", {"collection": "docs", "text": "keys", "k": 3})
    assert response.status_code == 200
    reply = SearchReply.model_validate_json(response.content)
    assert [hit.document_id for hit in reply.hits] == ["guides/0", "guides/1", "guides/2"]
    assert reply.coverage.fraction == 0.5
    assert reply.coverage.missing == ["shard-1"]
    assert reply.timings.scan_ms == 1.5
    assert reply.timings.prompt_ms is None
    assert reply.trace_id == response.headers["x-trace-id"]
    assert response.json()["retrieval"] == {
        "nprobe": 8,
        "refine_k": 20,
        "recall_expected": 0.95,
        "recall_reached": True,
        "lists_probed": 12,
        "filter_selectivity": 0.25,
        "filter_limited": False,
        "queries": [],
    }


async def test_a_wanted_recall_reaches_the_pipeline(rig: Rig) -> None:
    for recall in (0.95, 1, 1e-3):
        body = {"collection": "docs", "text": "keys", "recall": recall, "nprobe": None}
        assert (await rig.post("/v1/search", body)).status_code == 200
        assert last_spec(rig).recall == recall
        assert last_spec(rig).nprobe is None


async def test_nprobe_and_recall_together_are_refused_by_both_names(rig: Rig) -> None:
    body = {"collection": "docs", "text": "keys", "recall": 0.9, "nprobe": 4}
    response = await rig.post("/v1/search", body)
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert "nprobe" in message
    assert "recall" in message
    assert rig.runtime.pipeline.specs == []


async def test_a_vector_reaches_the_pipeline_as_float32(rig: Rig) -> None:
    response = await rig.post("/v1/search", {"collection": "docs", "vector": VECTOR})
    assert response.status_code == 200
    spec = last_spec(rig)
    assert spec.vector is not None
    assert spec.vector.dtype == np.float32
    assert spec.vector.tolist() == VECTOR
    assert spec.text is None
    assert spec.k == 5


async def test_every_option_reaches_the_pipeline(rig: Rig) -> None:
    body = {
        "collection": "docs",
        "text": "keys",
        "k": 7,
        "nprobe": 9,
        "min_coverage": 0.25,
        "timeout_ms": 5000,
        "filters": {
            "lang": "en",
            "year": {"lt": 2027, "gte": 2020},
            "tag": ["a", True, 1, 1.5],
            "draft": {"ne": True},
        },
    }
    assert (await rig.post("/v1/search", body)).status_code == 200
    spec = last_spec(rig)
    assert (spec.k, spec.nprobe, spec.min_coverage) == (7, 9, 0.25)
    assert spec.filters == (
        FilterTerm("lang", "in", ("en",)),
        FilterTerm("year", "gte", (2020,)),
        FilterTerm("year", "lt", (2027,)),
        FilterTerm("tag", "in", ("a", True, 1, 1.5)),
        FilterTerm("draft", "ne", (True,)),
    )
    assert [type(v) for v in spec.filters[3].values] == [str, bool, int, float]
    assert 3 < rig.runtime.pipeline.contexts[-1].remaining_s() <= 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": None}, None),
        ({"vector": VECTOR}, None),
        ({"collection": "../etc"}, "collection"),
        ({"collection": "docs\n"}, "collection"),
        ({"collection": None}, "collection"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": 5}, "text"),
        ({"k": 0}, "k"),
        ({"k": 101}, "k"),
        ({"k": False}, "k"),
        ({"k": "5"}, "k"),
        ({"k": 5.5}, "k"),
        ({"min_coverage": 1.5}, "min_coverage"),
        ({"nprobe": 0}, "nprobe"),
        ({"recall": 0}, "recall"),
        ({"recall": 1.01}, "recall"),
        ({"recall": "0.9"}, "recall"),
        ({"recall": True}, "recall"),
        ({"timeout_ms": 1}, "timeout_ms"),
        ({"timeout_ms": 10**9}, "timeout_ms"),
        ({"filters": {"year": {}}}, "filters.year"),
        ({"filters": {"year": {"about": 3}}}, "filters.year.about"),
        ({"filters": {"year": {"gte": [1]}}}, "filters.year.gte"),
        ({"filters": {"year": []}}, "filters.year"),
        ({"filters": {"year": None}}, "filters.year"),
        ({"filters": {"year": {"gte": None}}}, "filters.year.gte"),
        ({"filters": ["year"]}, "filters"),
        ({"topk": 5}, "topk"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_wrong_value_is_refused_by_its_field(
    rig: Rig, change: dict[str, Any], field: str | None
) -> None:
    body = {"collection": "docs", "text": "keys", **change}
    response = await rig.post("/v1/search", body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["type"] == "invalid_input"
    assert error["field"] == field
    assert error["message"]
    assert rig.runtime.pipeline.specs == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "1e20", "true", '"1"'])
async def test_a_vector_of_anything_but_small_numbers_is_refused(rig: Rig, value: str) -> None:
    raw = '{"collection": "docs", "vector": [0, 1, VALUE, 3]}'.replace("VALUE", value)
    response = await rig.client.post(
        "/v1/search", content=raw, headers={"content-type": "application/json"}
    )
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "vector.2"


async def test_a_misspelt_field_is_told_its_name(rig: Rig) -> None:
    response = await rig.post("/v1/search", {"collection": "docs", "txt": "keys"})
    assert response.json()["error"]["hint"] == "did you mean text?"


async def test_a_wrong_dimension_is_refused(rig: Rig) -> None:
    response = await rig.post("/v1/search", {"collection": "docs", "vector": [1.0, 2.0]})
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "incompatible_request"


async def test_an_unknown_collection_is_not_found(rig: Rig) -> None:
    response = await rig.post("/v1/search", {"collection": "nope", "text": "keys"})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (e.Overloaded("full", retry_after_s=2.2), 429),
        (e.DeadlineExceeded("late"), 504),
        (e.Unavailable("no node"), 503),
        (e.InsufficientCoverage("half"), 503),
        (e.UpstreamError("odd"), 502),
        (e.VersionMismatch("old"), 502),
        (e.CorruptData("bits"), 500),
        (e.Conflict("busy"), 409),
    ],
    ids=lambda value: getattr(value, "type_name", None),
)
async def test_errors_of_the_pipeline_keep_their_type(
    rig: Rig, error: e.RagrigError, status: int
) -> None:
    rig.runtime.pipeline.error = error
    response = await rig.post("/v1/search", {"collection": "docs", "text": "keys"})
    assert response.status_code == status
    assert response.json()["error"]["type"] == error.type_name
    assert response.json()["error"]["trace_id"] == response.headers["x-trace-id"]
    if status == 429:
        assert response.headers["retry-after"] == "3"
