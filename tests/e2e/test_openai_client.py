"""The official OpenAI client against a running appliance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from tests.e2e.corpus import FOODS
from tests.e2e.rigs import RunningRig


@pytest.fixture
def client(appliance: RunningRig) -> Iterator[openai.OpenAI]:
    with (
        openai.DefaultHttpxClient(trust_env=False) as transport,
        openai.OpenAI(
            base_url=f"{appliance.url}/v1",
            api_key="none",
            http_client=transport,
            max_retries=0,
            timeout=60,
        ) as opened,
    ):
        yield opened


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="ragrig/zoo",
        messages=[{"role": "user", "content": "What does the badger eat?"}],
    )
    assert FOODS["badger"] in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 0
    assert reply.model_extra is not None
    assert "zoo/badger" in [c["document_id"] for c in reply.model_extra["citations"]]


def test_streamed_chat_with_citations(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="ragrig/zoo",
        messages=[
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "What does the toucan eat?"},
        ],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert FOODS["toucan"] in text
    last = next(c for c in chunks if c.choices and c.choices[0].finish_reason)
    assert last.model_extra is not None
    assert "zoo/toucan" in [c["document_id"] for c in last.model_extra["citations"]]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_the_collection_through_an_extra_field(client: openai.OpenAI) -> None:
    model = next(m.id for m in client.models.list() if "/" not in m.id and "extractive" in m.id)
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What does the yak eat?"}],
        extra_body={"collection": "zoo", "k": 3},
    )
    assert FOODS["yak"] in (reply.choices[0].message.content or "")


def test_embeddings(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(
        model="minilm", input=["a small cat", "a little kitten", "tax law of 1987"]
    )
    vectors = np.array([item.embedding for item in reply.data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert reply.usage.prompt_tokens > 0


def test_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"ragrig/zoo", "ragrig/sightings", "minilm"} <= names


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="ragrig/nowhere", messages=question)
    body = caught.value.response.json()
    assert set(body["error"]) == {"type", "message", "field", "hint", "trace_id"}
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="ragrig/zoo", messages=question, temperature=9)
