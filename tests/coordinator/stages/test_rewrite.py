"""Questions that are searched for in other words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from coordinator.types import DoneEvent, QuerySpec, RetrievalEvent, SearchOutcome, SearchSpec
from ragschema.errors import InternalError, Overloaded, Unavailable
from ragschema.refining import RerankConfig, RewriteConfig
from ragschema.rig import CoordinatorConfig
from ragschema.types import ChatMessage
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.test_metrics import node_errors, samples
from tests.coordinator.waiting import until

ROWS = 40
VECTORS = unit_vectors(ROWS)


def _roles(*more: str) -> Any:
    def prepare(llms: Any, _: Any) -> None:
        for llm in llms:
            llm.roles = ("embed", "generate", *more)
            llm.reset()

    return prepare


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rewrite=RewriteConfig(max_queries=2, history_turns=2))
    async with running_stage(
        tmp_path, llm_nodes=2, coordinator=config, prepare=_roles("rewrite")
    ) as running:
        yield running


async def _ask(stage: Stage, k: int = 4, **more: Any) -> tuple[SearchOutcome, DoneEvent]:
    spec = QuerySpec(SearchSpec("notes", k, text="and it?"), "and it?", **more)
    async with aclosing(stage.runtime.pipeline.query(spec, context())) as events:
        told = [event async for event in events]
    assert isinstance(told[0], RetrievalEvent)
    assert isinstance(told[-1], DoneEvent)
    return told[0].outcome, told[-1]


def _write(stage: Stage, *queries: str) -> None:
    for llm in stage.llms:
        llm.queries = queries


async def _nearest(stage: Stage, text: str, k: int) -> dict[int, float]:
    outcome = await stage.runtime.pipeline.search(SearchSpec("notes", k, text=text), context())
    return {hit.chunk.row_id: hit.score for hit in outcome.hits}


async def test_the_hits_are_the_nearest_of_every_query(stage: Stage) -> None:
    _write(stage, "first thing", "second thing", "one too many")
    outcome, done = await _ask(stage)
    both = await _nearest(stage, "first thing", 4)
    for row, score in (await _nearest(stage, "second thing", 4)).items():
        both[row] = max(score, both.get(row, -9.0))
    expected = sorted(both, key=lambda row: (-both[row], row))[:4]
    assert [hit.chunk.row_id for hit in outcome.hits] == expected
    assert outcome.retrieval.queries == done.retrieval.queries == ("first thing", "second thing")
    assert outcome.timings.rewrite_ms is not None
    assert outcome.timings.total_ms >= outcome.timings.rewrite_ms
    assert samples(stage.runtime.metrics)["ragrig_tokens_total[('kind', 'rewrite')]"] == 35


async def test_the_latest_turns_are_read_and_the_answer_keeps_the_question(stage: Stage) -> None:
    _write(stage, "what the key is")
    history = tuple(ChatMessage("user", f"turn {number}") for number in range(5))
    await _ask(stage, history=history)
    (request,) = [one for llm in stage.llms for one in llm.rewritten]
    assert request.question == "and it?"
    assert [turn.content for turn in request.history] == ["turn 3", "turn 4"]
    assert request.max_queries == 2
    (generated,) = [one for llm in stage.llms for one in llm.generated]
    assert generated.question == "and it?"


@pytest.mark.parametrize("turns", range(8))
async def test_a_short_history_is_read_whole(tmp_path: Path, turns: int) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rewrite=RewriteConfig())
    history = tuple(ChatMessage("user", f"turn {number}") for number in range(turns))
    async with running_stage(tmp_path, coordinator=config, prepare=_roles("rewrite")) as running:
        await _ask(running, history=history)
        (request,) = running.llms[0].rewritten
    latest = range(max(0, turns - RewriteConfig().history_turns), turns)
    assert [turn.content for turn in request.history] == [f"turn {number}" for number in latest]


async def test_without_a_query_the_question_is_searched_for(stage: Stage) -> None:
    _write(stage, " ")
    outcome, _ = await _ask(stage)
    expected = await _nearest(stage, "and it?", 4)
    assert [hit.chunk.row_id for hit in outcome.hits] == list(expected)
    assert outcome.retrieval.queries == ()


async def test_searches_are_not_rewritten(stage: Stage) -> None:
    _write(stage, "first thing")
    assert await _nearest(stage, "plain", 3)
    assert [llm.rewritten for llm in stage.llms] == [[], []]


async def test_another_node_takes_over_and_a_defect_is_told(stage: Stage) -> None:
    _write(stage, "first thing")
    stage.llms[0].rewrite_failure = Unavailable("going down")
    for _ in range(2):
        await _ask(stage)
    assert len(stage.llms[1].rewritten) == 2
    for llm in stage.llms:
        llm.rewrite_failure = InternalError("the model produced NaN")
    await until(lambda: all(node.ready for node in stage.runtime.pool.llm_nodes))
    with pytest.raises(InternalError, match="NaN"):
        await _ask(stage)


async def test_all_that_was_found_is_reranked_for_the_question(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rewrite=RewriteConfig(), rerank=RerankConfig(candidates=10))
    async with running_stage(
        tmp_path, coordinator=config, prepare=_roles("rewrite", "rerank")
    ) as stage:
        _write(stage, "first thing", "second thing")
        outcome, _ = await _ask(stage, k=3)
        (request,) = stage.llms[0].reranked
        assert request.query == "and it?"
        assert len(request.texts) == 10
        assert len(outcome.hits) == 3
        assert all(hit.rerank_score is not None for hit in outcome.hits)


async def test_a_full_node_is_passed_over_and_each_is_asked_once(stage: Stage) -> None:
    _write(stage, "first thing")
    stage.llms[0].rewrite_failure = Overloaded("the queue is full", retry_after_s=7)
    for _ in range(4):
        await _ask(stage)
    assert len(stage.llms[1].rewritten) == 4
    stage.llms[1].rewrite_failure = Overloaded("the queue is full", retry_after_s=7)
    before = node_errors(stage.runtime.metrics)
    with pytest.raises(Overloaded, match="queue is full") as caught:
        await _ask(stage)
    assert caught.value.retry_after_s == 7
    assert node_errors(stage.runtime.metrics) == before + 2


async def test_a_lost_node_and_a_full_one_are_both_tried(stage: Stage) -> None:
    _write(stage, "first thing")
    stage.llms[0].rewrite_failure = Unavailable("going down")
    stage.llms[1].rewrite_failure = Overloaded("the queue is full")
    with pytest.raises((Unavailable, Overloaded)):
        await _ask(stage)
    stage.llms[1].rewrite_failure = None
    await until(lambda: all(node.ready for node in stage.runtime.pool.llm_nodes))
    await _ask(stage)


async def test_without_a_node_that_rewrites_it_is_said(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rewrite=RewriteConfig())
    async with running_stage(tmp_path, coordinator=config) as running:
        with pytest.raises(Unavailable, match="has the role rewrite"):
            await _ask(running)
