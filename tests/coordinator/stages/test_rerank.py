"""A cross-encoder between the search and the prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from coordinator.types import DoneEvent, QuerySpec, RetrievalEvent, SearchSpec
from ragschema.errors import InternalError, Overloaded, Unavailable
from ragschema.refining import RerankConfig
from ragschema.rig import CoordinatorConfig
from tests.coordinator.making import (
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    write_collection,
)
from tests.coordinator.test_metrics import node_errors
from tests.coordinator.waiting import until

ROWS = 40
VECTORS = unit_vectors(ROWS)


def _reranking(llms: Any, _: Any) -> None:
    for llm in llms:
        llm.roles = ("embed", "generate", "rerank")
        llm.reset()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two LLM nodes that rerank; the collection's texts end with their row's number."""
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rerank=RerankConfig(candidates=12))
    async with running_stage(
        tmp_path, llm_nodes=2, coordinator=config, prepare=_reranking
    ) as running:
        yield running


def _asked(stage: Stage) -> list[Any]:
    return [request for llm in stage.llms for request in llm.reranked]


async def test_hits_are_the_best_of_more_candidates(stage: Stage) -> None:
    text = "which one?"
    found = await stage.runtime.pipeline.search(SearchSpec("notes", 4, text=text), context())
    (request,) = _asked(stage)
    assert request.query == text
    numbers = [int(one.split()[-1]) for one in request.texts]
    assert len(numbers) == 12
    rows = [hit.chunk.row_id for hit in found.hits]
    assert rows == sorted(numbers, key=lambda row: abs(row - 7))[:4]
    assert [hit.rerank_score for hit in found.hits] == [-abs(row - 7) for row in rows]
    assert found.timings.rerank_ms is not None
    assert found.timings.total_ms >= found.timings.rerank_ms


async def test_answers_are_written_from_the_reranked_passages(stage: Stage) -> None:
    spec = QuerySpec(SearchSpec("notes", 3, text="which?"), "which?")
    async with aclosing(stage.runtime.pipeline.query(spec, context())) as events:
        told = [event async for event in events]
    assert isinstance(told[0], RetrievalEvent)
    assert isinstance(told[-1], DoneEvent)
    best = [hit.chunk.row_id for hit in told[0].outcome.hits]
    assert sorted(c.hit.chunk.row_id for c in told[-1].citations) == sorted(best)
    assert told[-1].timings.rerank_ms is not None


async def test_a_search_by_vector_has_nothing_to_compare_with(stage: Stage) -> None:
    spec = SearchSpec("notes", 4, vector=VECTORS[3])
    found = await stage.runtime.pipeline.search(spec, context())
    assert found.hits[0].chunk.row_id == 3
    assert found.hits[0].rerank_score is None
    assert found.timings.rerank_ms is None
    assert _asked(stage) == []


async def test_a_request_for_more_than_the_candidates_gets_them(stage: Stage) -> None:
    found = await stage.runtime.pipeline.search(SearchSpec("notes", 30, text="all"), context())
    assert len(found.hits) == 30


async def test_another_node_takes_over_and_a_defect_is_told(stage: Stage) -> None:
    spec = SearchSpec("notes", 2, text="which?")
    stage.llms[0].rerank_failure = Unavailable("going down")
    for _ in range(2):
        assert len((await stage.runtime.pipeline.search(spec, context())).hits) == 2
    assert len(stage.llms[1].reranked) == 2
    for llm in stage.llms:
        llm.rerank_failure = InternalError("the reranker produced NaN")
    await until(lambda: all(node.ready for node in stage.runtime.pool.llm_nodes))
    with pytest.raises(InternalError, match="NaN"):
        await stage.runtime.pipeline.search(spec, context())


async def test_a_full_node_is_passed_over_and_each_is_asked_once(stage: Stage) -> None:
    spec = SearchSpec("notes", 2, text="which?")
    stage.llms[0].rerank_failure = Overloaded("the queue is full", retry_after_s=7)
    for _ in range(4):
        await stage.runtime.pipeline.search(spec, context())
    assert len(stage.llms[1].reranked) == 4
    stage.llms[1].rerank_failure = Overloaded("the queue is full", retry_after_s=7)
    before = node_errors(stage.runtime.metrics)
    with pytest.raises(Overloaded, match="queue is full") as caught:
        await stage.runtime.pipeline.search(spec, context())
    assert caught.value.retry_after_s == 7
    assert node_errors(stage.runtime.metrics) == before + 2


async def test_a_lost_node_and_a_full_one_are_both_tried(stage: Stage) -> None:
    spec = SearchSpec("notes", 2, text="which?")
    stage.llms[0].rerank_failure = Unavailable("going down")
    stage.llms[1].rerank_failure = Overloaded("the queue is full")
    with pytest.raises((Unavailable, Overloaded)):
        await stage.runtime.pipeline.search(spec, context())
    stage.llms[1].rerank_failure = None
    await until(lambda: all(node.ready for node in stage.runtime.pool.llm_nodes))
    await stage.runtime.pipeline.search(spec, context())


async def test_without_a_node_that_reranks_it_is_said(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    config = CoordinatorConfig(rerank=RerankConfig())
    async with running_stage(tmp_path, coordinator=config) as running:
        with pytest.raises(Unavailable, match="has the role rerank"):
            await running.runtime.pipeline.search(SearchSpec("notes", 2, text="x"), context())
