"""The official client against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.coordinator.rest.conftest import open_rig, served

KEY = "open-sesame"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        open_rig(tmp_path, key=KEY) as rig,
        served(rig.app) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as found,
    ):
        yield found


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == ["ragrig/docs", "minilm", "extractive"]


async def test_chat(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="ragrig/docs",
        messages=[{"role": "user", "content": "How are keys rotated?"}],
        temperature=0,
        max_tokens=64,
        extra_body={"k": 3, "filters": {"year": 2026}},
    )
    assert reply.choices[0].message.content == "Keys are rotated weekly [1]."
    assert reply.usage is not None
    assert reply.usage.total_tokens == 24
    assert reply.model_extra is not None
    assert reply.model_extra["citations"][0]["document_id"] == "guides/0"


async def test_choices_and_log_probabilities(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="ragrig/docs",
        messages=[{"role": "user", "content": "How are keys rotated?"}],
        n=2,
        logprobs=True,
        top_logprobs=1,
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    told = reply.choices[1].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(one.token for one in told.content) == reply.choices[1].message.content
    assert told.content[0].top_logprobs[0].logprob == -9.5


async def test_text_completions(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(
        model="ragrig/docs", prompt="How are keys rotated?", logprobs=1
    )
    assert reply.choices[0].text == "Keys are rotated weekly [1]."
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.text_offset == [0, 5, 9, 17]
    stream = await client.completions.create(
        model="ragrig/docs", prompt="How are keys rotated?", stream=True
    )
    text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == "Keys are rotated weekly [1]."


async def test_streamed_chat(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="extractive",
        messages=[{"role": "user", "content": "How are keys rotated?"}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"collection": "docs"},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Keys are rotated weekly [1]."
    finished = [c for c in chunks if c.choices and c.choices[0].finish_reason == "stop"]
    assert finished[0].model_extra is not None
    assert finished[0].model_extra["citations"][0]["cited"] is True
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("encoding", ["base64", "float", None])
async def test_embeddings(client: openai.AsyncOpenAI, encoding: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    reply = await client.embeddings.create(model="minilm", input=["one", "three"], **options)  # type: ignore[arg-type]
    if encoding == "base64":
        assert isinstance(reply.data[0].embedding, str)
        return
    assert [item.embedding for item in reply.data] == [[3, 0.5, -0.25, 1], [5, 0.5, -0.25, 1]]
    assert reply.usage.prompt_tokens == 2


async def test_errors_are_read_from_our_body(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(
            model="ragrig/nope", messages=[{"role": "user", "content": "hi"}]
        )
    assert "nope" in missing.value.message
    with pytest.raises(openai.UnprocessableEntityError, match="does not support"):
        await client.chat.completions.create(
            model="ragrig/docs", messages=[{"role": "user", "content": "hi"}], tools=[]
        )


async def test_a_wrong_key_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
