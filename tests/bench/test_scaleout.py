"""The scale-out benchmark without a cluster: its plans, its load and its counting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.scaleout import _documents, _plan, _rig
from bench.scaleout_load import Answer, ClosedLoop, summary
from coordinator.cli.up_ray import planned_on_ray
from coordinator.ray_engine.placement import needs_of
from ragschema.planner.plan_file import read_plan


def test_its_plans_run_twice_and_the_second_is_wider(tmp_path: Path) -> None:
    path, rig = _plan(tmp_path, 1), _rig(tmp_path)
    first, wider = (planned_on_ray(p, rig) for p in (path, tmp_path / "wider.yaml"))
    assert len(first.retrieval_nodes) == 2
    assert len(wider.retrieval_nodes) == 4
    assert (first.num_shards, wider.num_shards) == (1, 2)
    assert len(first.llm_nodes) % 2 == 0
    assert {n.generator for n in wider.llm_nodes} == {f"hf:{tmp_path / 'writer'}"}
    batch = read_plan(path).stages["decode"][1]
    assert read_plan(tmp_path / "wider.yaml").stages["decode"][1] == max(1, batch // 2)
    assert len(needs_of(wider)) == len(wider.llm_nodes) + 4
    assert len({document["text"] for document in _documents()}) == 240


def test_a_summary_counts_what_ended_between_two_times() -> None:
    answers = [
        Answer("search", 0.0, 1.0, None),
        Answer("query", 0.5, 1.5, "503 unavailable"),
        Answer("search", 0.9, 1.9, None),
        Answer("search", 1.5, 3.0, "ReadTimeout"),
    ]
    found = summary(answers, 1.0, 3.0)
    assert (found["requests"], found["lost"]) == (3, {"503 unavailable": 1})
    assert found["per_s"] == 1.5
    assert found["search_ms"] == {"p50": 1000.0, "p99": 1000.0}
    assert summary([], 0.0, 1.0) == {"seconds": 1.0, "requests": 0, "lost": {}, "per_s": 0.0}


async def test_every_failure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.001)
        asked.append(yaml.safe_load(request.content))
        if len(asked) % 3 == 0:
            return httpx.Response(503, json={"error": {"type": "unavailable"}})
        if len(asked) % 4 == 0:
            raise httpx.ReadError("broken")
        return httpx.Response(200, json={})

    loop = ClosedLoop("http://rig", "notes", ["what?"], 4)
    mock = httpx.AsyncClient(base_url="http://rig", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(loop, "_client", mock)
    loop.start(2)
    async with asyncio.timeout(20):
        await loop.answered(12)
        await loop.stop()
    assert len(loop.answers) == len(asked)
    problems = {a.problem for a in loop.answers}
    assert problems == {None, "503 unavailable", "ReadError"}
    assert {body.get("max_tokens") for body in asked} == {None, 4}
    assert all(body["min_coverage"] == 1.0 for body in asked)
