"""A collection's wanted recall, and what sampled searches of it reached."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.recall.window import RecallEstimate
from coordinator.rest.replies import CollectionReply, StatusReply
from tests.coordinator.rest.conftest import Rig

DOCS = "/v1/collections/docs"


async def test_a_new_collection_may_want_a_recall(rig: Rig) -> None:
    response = await rig.post("/v1/collections", {"name": "notes", "recall": 0.9})
    assert response.status_code == 201
    nothing_sampled = {"estimate": None, "lower_bound": None, "samples": 0}
    assert response.json()["recall"] == {"wanted": 0.9, **nothing_sampled}
    other = await rig.client.get(DOCS)
    assert other.json()["recall"] == {"wanted": None, **nothing_sampled}


async def test_it_can_be_set_and_taken_back(rig: Rig) -> None:
    generations = []
    for wanted in (0.5, 1, None):
        response = await rig.client.put(f"{DOCS}/recall", json={"recall": wanted})
        assert response.status_code == 200
        reply = CollectionReply.model_validate_json(response.content)
        assert reply.recall is not None
        assert reply.recall.wanted == wanted
        assert (await rig.client.get(DOCS)).json() == response.json()
        generations.append(reply.generation)
    assert len(set(generations)) == 3


@pytest.mark.parametrize(
    "body", [{}, {"recall": 0}, {"recall": 1.5}, {"recall": "1"}, {"recall": 0.5, "k": 1}]
)
async def test_wrong_bodies(rig: Rig, body: dict[str, Any]) -> None:
    response = await rig.client.put(f"{DOCS}/recall", json=body)
    assert response.status_code == 422


async def test_an_unknown_collection_is_not_found(rig: Rig) -> None:
    response = await rig.client.put("/v1/collections/nope/recall", json={"recall": 0.5})
    assert response.status_code == 404


async def test_collections_and_status_tell_the_estimate(rig: Rig) -> None:
    rig.runtime.pipeline.estimates["docs"] = RecallEstimate(0.97, 0.91, 40)
    shown = {"wanted": None, "estimate": 0.97, "lower_bound": 0.91, "samples": 40}
    assert (await rig.client.get(DOCS)).json()["recall"] == shown
    status = await rig.client.get("/v1/status")
    StatusReply.model_validate_json(status.content)
    assert [c["recall"] for c in status.json()["collections"]] == [shown]
