"""POST /v1/embeddings and GET /v1/models beyond what the official client sends."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from coordinator.rest.openai_replies import EmbeddingsReply, ModelsReply
from ragschema.errors import CorruptData
from tests.coordinator.rest.conftest import Rig


async def test_one_string_gives_one_vector(rig: Rig) -> None:
    response = await rig.post("/v1/embeddings", {"input": "one two"})
    reply = EmbeddingsReply.model_validate_json(response.content)
    assert reply.data[0].embedding == [7.0, 0.5, -0.25, 1.0]
    assert reply.model == "minilm"
    assert reply.usage.total_tokens == 2


async def test_base64_is_little_endian_float32(rig: Rig) -> None:
    body = {"input": ["one"], "encoding_format": "base64"}
    found = (await rig.post("/v1/embeddings", body)).json()["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(found), dtype="<f4")
    assert vector.tolist() == [3.0, 0.5, -0.25, 1.0]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": "x", "model": "gpt"}, 404, "model"),
        ({"input": "x", "dimensions": 3}, 422, "dimensions"),
        ({"input": []}, 422, "input"),
        ({"input": [""]}, 422, "input.0"),
        ({"input": [1, 2]}, 422, "input.0"),
        ({"input": None}, 422, "input"),
        ({"input": "x", "encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": "x", "purpose": "fun"}, 422, "purpose"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_wrong_requests(rig: Rig, body: dict[str, Any], status: int, field: str) -> None:
    response = await rig.post("/v1/embeddings", body)
    assert response.status_code == status
    assert response.json()["error"]["field"] == field


async def test_without_an_embedder_nothing_is_embedded(rig: Rig) -> None:
    rig.runtime.pool.known_models = ()
    assert (await rig.post("/v1/embeddings", {"input": "x"})).status_code == 503


async def test_models_of_a_broken_collection_are_still_listed(rig: Rig) -> None:
    rig.runtime.catalog.broken["docs"] = CorruptData("bits flipped")
    reply = ModelsReply.model_validate_json((await rig.client.get("/v1/models")).content)
    assert reply.data[0].id == "ragrig/docs"
