"""A client that leaves stops the work behind its request, streamed or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.rest import sse
from ragschema.rig import LimitsConfig
from tests.coordinator.rest.conftest import Rig, open_rig, served

QUESTION = {"collection": "docs", "question": "How are keys rotated?"}
CHAT = {"model": "ragrig/docs", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def live(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with served(rig.app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def settled(rig: Rig, running: int) -> None:
    async with asyncio.timeout(10):
        while rig.runtime.pipeline.running != running:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"collection": "docs", "text": "keys"}),
        ("/v1/query", QUESTION),
        ("/v1/chat/completions", CHAT),
    ],
)
async def test_leaving_before_the_answer(
    rig: Rig, live: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    rig.runtime.pipeline.search_s = rig.runtime.pipeline.token_s = 600
    task = asyncio.create_task(live.post(path, json=body))
    await settled(rig, running=1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await settled(rig, running=0)
    assert rig.runtime.pipeline.cancelled == 1
    assert 'status="499"' in (await live.get("/metrics")).text


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/query", QUESTION), ("/v1/chat/completions", CHAT)]
)
async def test_leaving_in_the_middle_of_a_stream(
    rig: Rig, live: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    rig.runtime.pipeline.words = ("word ",) * 100_000
    rig.runtime.pipeline.token_s = 0.01
    async with live.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        seen = 0
        async for line in response.aiter_lines():
            seen += line.startswith("data: ")
            if seen == 5:
                break
        assert rig.runtime.pipeline.running == 1
    await settled(rig, running=0)
    assert rig.runtime.pipeline.cancelled == 1


async def test_leaving_while_a_stream_waits_for_its_next_token(
    rig: Rig, live: httpx.AsyncClient
) -> None:
    rig.runtime.pipeline.token_s = 600
    async with live.stream("POST", "/v1/query", json={**QUESTION, "stream": True}) as response:
        assert (await anext(response.aiter_lines())) == "event: retrieval"
    await settled(rig, running=0)


async def test_a_quiet_stream_is_kept_alive(
    rig: Rig, live: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = list(sse.EventStream.__init__.__defaults__ or ())
    defaults[-1] = 0.05
    monkeypatch.setattr(sse.EventStream.__init__, "__defaults__", tuple(defaults))
    rig.runtime.pipeline.words = ("slow",)
    rig.runtime.pipeline.token_s = 0.5
    response = await live.post("/v1/query", json={**QUESTION, "stream": True})
    blocks = response.text.split("\n\n")
    assert sum(block.startswith(":") for block in blocks) >= 2
    assert blocks[-2].startswith("event: done")


async def test_a_pipeline_that_misses_its_deadline_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.rest.guard._DEADLINE_GRACE_S", 0.05)
    async with open_rig(tmp_path, LimitsConfig(default_timeout_ms=50)) as rig:
        rig.runtime.pipeline.search_s = rig.runtime.pipeline.token_s = 600
        async with served(rig.app) as url, httpx.AsyncClient(base_url=url) as client:
            response = await client.post("/v1/search", json={"collection": "docs", "text": "x"})
            assert response.status_code == 504
            assert response.json()["error"]["type"] == "deadline_exceeded"
            stream = await client.post("/v1/query", json={**QUESTION, "stream": True})
            assert "event: error" in stream.text
            assert "deadline_exceeded" in stream.text
        assert rig.runtime.pipeline.running == 0


async def test_the_connection_serves_on_after_a_stream(rig: Rig, live: httpx.AsyncClient) -> None:
    for _ in range(3):
        response = await live.post("/v1/query", json={**QUESTION, "stream": True})
        assert response.text.rstrip().split("\n")[-2] == "event: done"
        assert (await live.post("/v1/query", json=QUESTION)).status_code == 200
