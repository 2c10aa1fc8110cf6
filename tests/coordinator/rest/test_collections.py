"""/v1/collections: create, list, describe, drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.jobs.runner import JobOptions
from coordinator.rest.replies import CollectionReply, CollectionsReply, DroppedReply
from ragschema.errors import CorruptData
from tests.coordinator.rest.conftest import Rig, open_rig
from tests.coordinator.rest.fake_runtime import ENDLESS_INGESTION, program


async def test_a_new_collection_is_there_at_once(rig: Rig) -> None:
    body = {"name": "notes", "metric": "l2", "chunking": {"tokens": 100, "overlap": 10}}
    response = await rig.post("/v1/collections", body)
    assert response.status_code == 201
    created = CollectionReply.model_validate_json(response.content)
    assert (created.name, created.metric, created.dim) == ("notes", "l2", 4)
    assert created.embedder == "minilm"
    assert created.num_shards == 2
    assert created.chunking is not None
    assert created.chunking.tokens == 100
    one = await rig.client.get("/v1/collections/notes")
    assert one.json() == response.json()
    listed = CollectionsReply.model_validate_json((await rig.client.get("/v1/collections")).content)
    assert [c.name for c in listed.collections] == ["docs", "notes"]


async def test_an_existing_name_is_a_conflict(rig: Rig) -> None:
    response = await rig.post("/v1/collections", {"name": "docs"})
    assert response.status_code == 409
    assert response.json()["error"]["type"] == "conflict"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "Docs"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "a", "metric": "hamming"}, "metric"),
        ({"name": "a", "chunking": {"tokens": 8}}, "chunking.tokens"),
        ({"name": "a", "chunking": {"tokens": 100, "overlap": 51}}, "chunking"),
        ({"name": "a", "dim": 3}, "dim"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_wrong_bodies(rig: Rig, body: dict[str, Any], field: str) -> None:
    response = await rig.post("/v1/collections", body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field


async def test_without_an_embedder_nothing_is_created(rig: Rig) -> None:
    rig.runtime.pool.known_models = ()
    assert (await rig.post("/v1/collections", {"name": "a"})).status_code == 503
    assert rig.runtime.store.names() == ["docs"]


async def test_dropping(rig: Rig) -> None:
    response = await rig.client.delete("/v1/collections/docs")
    DroppedReply.model_validate_json(response.content)
    assert (await rig.client.get("/v1/collections/docs")).status_code == 404
    assert (await rig.client.delete("/v1/collections/docs")).status_code == 404


async def test_a_collection_with_a_job_is_not_dropped(tmp_path: Path) -> None:
    options = JobOptions(program=program(ENDLESS_INGESTION))
    async with open_rig(tmp_path, options=options) as rig:
        path = "/v1/collections/docs/documents"
        job = (await rig.post(path, {"documents": [{"text": "hi"}]})).json()
        response = await rig.client.delete("/v1/collections/docs")
        assert response.status_code == 409
        assert job["id"] in response.json()["error"]["hint"]
        cancelled = await rig.client.delete(f"/v1/jobs/{job['id']}")
        assert cancelled.json()["state"] == "cancelled"
        assert (await rig.client.delete("/v1/collections/docs")).status_code == 200


async def test_a_broken_collection_is_listed_with_its_error(rig: Rig) -> None:
    rig.runtime.catalog.broken["docs"] = CorruptData("index/a.rag: checksum does not match")
    reply = CollectionsReply.model_validate_json((await rig.client.get("/v1/collections")).content)
    assert reply.collections[0].error == "index/a.rag: checksum does not match"
    assert reply.collections[0].generation is None
    assert (await rig.client.get("/v1/collections/docs")).status_code == 500


@pytest.mark.parametrize("name", ["Docs", "..", "a%2Fb", "a%0A", "%00"])
async def test_a_name_that_could_be_a_path_is_refused(rig: Rig, name: str) -> None:
    response = await rig.client.get(f"http://rig/v1/collections/{name}")
    assert response.status_code in (404, 422)
    assert response.json()["error"]["type"] in ("not_found", "invalid_input")
