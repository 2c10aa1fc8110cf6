"""Load on a running appliance: our own generator, and the requests that others send."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.corpus import FOODS
from tests.e2e.rigs import RunningRig

OUTPUT_TOKENS = 32
#: What a client sends beside model and messages, key by key, with a count of output tokens.
CLIENTS: dict[str, dict[str, Any]] = {
    "vllm bench serve --backend openai-chat": {
        "temperature": 0.0,
        "max_completion_tokens": OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "vllm bench serve --ignore-eos": {
        "temperature": 0.0,
        "max_completion_tokens": OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    },
    "guidellm 0.8 with lengths": {
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": OUTPUT_TOKENS,
        "stop": None,
        "ignore_eos": True,
    },
}


def test_our_own_load(appliance: RunningRig) -> None:
    (appliance.folder / "questions.txt").write_text(
        "".join(f"What does the {animal} eat?\n" for animal in FOODS)
    )
    done = appliance.command(
        "bench", "load", "-c", str(appliance.config), "--model", "ragrig/zoo",
        "--questions", "questions.txt", "--rate", "20", "--requests", "20", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["errors"] == {}
    assert report["coverage"]["completed"] == 20
    assert report["tokens"]["output_counted"] == 20
    assert {"embed", "scan", "first_token", "total"} <= set(report["stages_ms"])
    ttft, total = report["metrics"]["ttft_ms"], report["metrics"]["e2e_ms"]
    assert 0 < ttft["p50"] <= ttft["p99"] <= total["max"]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_other_load_generators_send_is_served(babbler: RunningRig, client: str) -> None:
    """Health, models, then a stream whose last chunks hold a reason to end and true usage."""
    with babbler.client() as http:
        assert http.get("/health").status_code == httpx.codes.OK
        model = http.get("/v1/models").json()["data"][0]["id"]
        body = {
            "model": model,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What does the cat do?"}]}
            ],
            **CLIENTS[client],
        }
        with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            assert reply.status_code == httpx.codes.OK, reply.read()
            lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert any(c["choices"] and c["choices"][0]["delta"].get("content") for c in chunks)
    assert any(c["choices"] and c["choices"][0]["finish_reason"] for c in chunks)
    assert 0 < chunks[-1]["usage"]["completion_tokens"] <= OUTPUT_TOKENS
    if CLIENTS[client].get("ignore_eos"):
        assert chunks[-1]["usage"]["completion_tokens"] == OUTPUT_TOKENS


async def test_the_official_client_under_load(appliance: RunningRig) -> None:
    """Eight streams at once through the official library, as load generators built on it do."""

    async def stream_of(opened: openai.AsyncOpenAI, animal: str) -> tuple[str, int]:
        stream = await opened.chat.completions.create(
            model="ragrig/zoo",
            messages=[{"role": "user", "content": f"What does the {animal} eat?"}],
            max_completion_tokens=48,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        usage = chunks[-1].usage
        assert usage is not None
        return text, usage.completion_tokens

    async with openai.AsyncOpenAI(
        base_url=f"{appliance.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=60,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as opened:
        animals = list(FOODS)[:8]
        answers = await asyncio.gather(*(stream_of(opened, animal) for animal in animals))
    for animal, (text, tokens) in zip(animals, answers, strict=True):
        assert FOODS[animal] in text
        assert tokens > 0
