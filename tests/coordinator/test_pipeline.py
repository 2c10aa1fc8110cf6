"""Searches and questions from end to end, against nodes behind real ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.types import (
    CitationEvent,
    DoneEvent,
    FilterTerm,
    QueryEvent,
    QuerySpec,
    RetrievalEvent,
    SearchOutcome,
    SearchSpec,
    TokenEvent,
)
from ragschema.errors import (
    DeadlineExceeded,
    IncompatibleRequest,
    InsufficientCoverage,
    InvalidInput,
    NotFound,
    Overloaded,
    RagrigError,
    Unavailable,
    UpstreamError,
)
from ragschema.rig import BatchConfig, LimitsConfig
from ragschema.types import CallContext, EmbedPurpose, Metric, Sampling
from tests.coordinator.making import (
    DIM,
    Content,
    Stage,
    context,
    running_stage,
    unit_vectors,
    with_stages,
    write_collection,
)
from tests.coordinator.waiting import until

ROWS = 40
VECTORS = unit_vectors(ROWS)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two retrieval nodes, one LLM node and the collection ``notes``."""
    metadata = [{"year": 2000 + row % 4} for row in range(ROWS)]
    write_collection(tmp_path, "notes", Content(VECTORS, metadata=metadata))
    async with running_stage(tmp_path) as running:
        yield running


def by_vector(row: int, k: int = 5, **more: Any) -> SearchSpec:
    return SearchSpec("notes", k, vector=VECTORS[row], **more)


def rows_of(outcome: SearchOutcome) -> list[int]:
    return [hit.chunk.row_id for hit in outcome.hits]


def exact(query: Any, k: int, among: Any = None) -> list[int]:
    rows = np.arange(ROWS) if among is None else among
    far = -(VECTORS[rows] @ query)
    return [int(r) for r in rows[np.lexsort((rows, far))][:k]]


async def collect(
    stage: Stage, spec: QuerySpec, ctx: CallContext | None = None
) -> list[QueryEvent]:
    async with aclosing(stage.runtime.pipeline.query(spec, ctx or context())) as events:
        return [event async for event in events]


def ask(text: str = "how are you?", **more: Any) -> QuerySpec:
    return QuerySpec(SearchSpec("notes", 3, text=text), text, **more)


async def test_a_vector_search_is_exact_over_all_shards(stage: Stage) -> None:
    for row in (0, 7, 31):
        outcome = await stage.runtime.pipeline.search(by_vector(row), context())
        assert rows_of(outcome) == exact(VECTORS[row], 5)
        assert outcome.hits[0].score == pytest.approx(1.0, abs=1e-5)
        assert outcome.hits[0].chunk.text == f"text of row {row}"
        assert outcome.coverage.fraction == 1.0
        assert outcome.coverage.missing == ()
        assert (outcome.collection, outcome.generation) == ("notes", 1)


async def test_scores_fall(stage: Stage) -> None:
    outcome = await stage.runtime.pipeline.search(by_vector(3, k=ROWS), context())
    scores = [h.score for h in outcome.hits]
    assert scores == sorted(scores, reverse=True)


async def test_a_text_search_embeds_first(stage: Stage) -> None:
    spec = SearchSpec("notes", 4, text="good morning")
    outcome = await stage.runtime.pipeline.search(spec, context())
    assert rows_of(outcome) == exact(stage.llms[0].vector("good morning"), 4)
    assert outcome.usage.embed_tokens == 2
    assert outcome.timings.embed_ms is not None


async def test_cosine_ignores_length(stage: Stage) -> None:
    spec = SearchSpec("notes", 5, vector=VECTORS[2] * np.float32(1e-20))
    outcome = await stage.runtime.pipeline.search(spec, context())
    assert rows_of(outcome) == exact(VECTORS[2], 5)
    assert outcome.hits[0].score == pytest.approx(1.0, abs=1e-5)


async def test_timings_tell_where_the_time_went(stage: Stage) -> None:
    for node in stage.retrievals:
        node.pause_s = 0.03
    timings = (await stage.runtime.pipeline.search(by_vector(0), context())).timings
    assert timings.scan_ms is not None
    assert timings.scan_ms >= 30
    assert timings.total_ms >= timings.scan_ms
    assert timings.embed_ms is None
    assert timings.probe_ms is None  # exact: there is nothing to probe
    assert timings.first_token_ms is None


async def test_a_filter_narrows_the_search(stage: Stage) -> None:
    term = FilterTerm("year", "in", (2001,))
    outcome = await stage.runtime.pipeline.search(by_vector(0, filters=(term,)), context())
    assert rows_of(outcome) == exact(VECTORS[0], 5, np.arange(1, ROWS, 4))


async def test_searches_of_one_moment_share_one_call_to_each_node(stage: Stage) -> None:
    term = FilterTerm("year", "in", (2001,))
    pipeline = stage.runtime.pipeline
    await pipeline.search(by_vector(0, filters=(term,)), context())
    for node in stage.retrievals:
        node.batches.clear()
    specs = [by_vector(row, k=1 + row % 6) for row in range(20)]
    outcomes = await asyncio.gather(*(pipeline.search(s, context()) for s in specs))
    for row, (spec, outcome) in enumerate(zip(specs, outcomes, strict=True)):
        assert rows_of(outcome) == exact(VECTORS[row], spec.k)
    for node in stage.retrievals:
        assert [len(b.queries) for b in node.batches] == [20]
        assert node.batches[0].k == 6


async def test_equal_filters_travel_once(stage: Stage) -> None:
    pipeline = stage.runtime.pipeline
    for node in stage.retrievals:
        node.pause_s = 0.05
    terms = [(FilterTerm("year", "in", (2000 + i % 2,)),) for i in range(6)]
    for term in terms[:2]:
        await pipeline.search(by_vector(0, filters=term), context())
    stage.retrievals[0].batches.clear()
    blockers = [
        asyncio.create_task(pipeline.search(by_vector(0, k=1 + i), context())) for i in range(2)
    ]
    await until(lambda: bool(stage.retrievals[0].batches))
    specs = [by_vector(i, filters=t) for i, t in enumerate(terms)] + [by_vector(6)]
    outcomes = await asyncio.gather(*(pipeline.search(s, context()) for s in specs))
    await asyncio.gather(*blockers)
    for i, outcome in enumerate(outcomes[:6]):
        assert rows_of(outcome) == exact(VECTORS[i], 5, np.arange(i % 2, ROWS, 4))
    assert rows_of(outcomes[6]) == exact(VECTORS[6], 5)
    batches = [b for b in stage.retrievals[0].batches if b.filters]
    assert sum(len(b.queries) for b in batches) >= 6
    for batch in batches:
        assert len({f.tobytes() for f in batch.filters}) == len(batch.filters) <= 2


async def test_k_beyond_the_collection_gives_all_of_it(stage: Stage) -> None:
    outcome = await stage.runtime.pipeline.search(by_vector(0, k=100), context())
    assert sorted(rows_of(outcome)) == list(range(ROWS))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vector": None}, "text"),
        ({"text": "both"}, "text"),
        ({"vector": None, "text": "  "}, "text"),
        ({"k": 0}, "k"),
        ({"k": 101}, "k"),
        ({"nprobe": 0}, "nprobe"),
        ({"min_coverage": 1.5}, "min_coverage"),
        ({"vector": np.ones(DIM + 1, np.float32)}, "vector"),
        ({"vector": np.ones((1, DIM), np.float32)}, "vector"),
        ({"vector": np.full(DIM, np.nan, np.float32)}, "vector"),
        ({"vector": np.full(DIM, np.inf, np.float32)}, "vector"),
        ({"vector": np.zeros(DIM, np.float32)}, "vector"),
    ],
)
async def test_a_wrong_request_is_refused_by_field(
    stage: Stage, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await stage.runtime.pipeline.search(replace(by_vector(0), **change), context())
    assert refused.value.field == field
    assert all(not node.batches for node in stage.retrievals)


async def test_a_wrong_dimension_names_both(stage: Stage) -> None:
    spec = replace(by_vector(0), vector=np.ones(5, np.float32))
    with pytest.raises(InvalidInput, match=rf"5 .*{DIM}"):
        await stage.runtime.pipeline.search(spec, context())


async def test_an_unknown_collection_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await stage.runtime.pipeline.search(replace(by_vector(0), collection="nowhere"), context())


async def test_text_for_vectors_of_another_model_is_refused(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))

    def prepare(llms: Any, _: Any) -> None:
        llms[0].fingerprint = "another"

    async with running_stage(tmp_path, prepare=prepare) as stage:
        with pytest.raises(IncompatibleRequest) as refused:
            await stage.runtime.pipeline.search(SearchSpec("notes", 3, text="x"), context())
        assert refused.value.hint is not None
        outcome = await stage.runtime.pipeline.search(by_vector(0), context())
        assert len(outcome.hits) == 5


async def test_text_for_vectors_of_no_model_is_refused(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, embedder=None))
    async with running_stage(tmp_path) as stage:
        with pytest.raises(IncompatibleRequest, match="no known model"):
            await stage.runtime.pipeline.search(SearchSpec("notes", 3, text="x"), context())


async def test_an_empty_collection_has_no_hits_and_full_coverage(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS[:0], metric=Metric.IP))
    async with running_stage(tmp_path) as stage:
        for spec in (by_vector(0, min_coverage=1.0), SearchSpec("notes", 3, text="x")):
            outcome = await stage.runtime.pipeline.search(spec, context())
            assert outcome.hits == ()
            assert outcome.coverage.fraction == 1.0


async def test_no_embedder_means_unavailable_for_text_alone(stage: Stage) -> None:
    await stage.kill("llm-0")
    with pytest.raises(Unavailable):
        await stage.runtime.pipeline.search(SearchSpec("notes", 3, text="x"), context())
    with pytest.raises(Unavailable):
        await stage.runtime.pipeline.embed(("x",), EmbedPurpose.QUERY, context())
    assert len((await stage.runtime.pipeline.search(by_vector(0), context())).hits) == 5
    await stage.restart("llm-0")
    await until(lambda: all(h.ready for h in stage.runtime.pool.health()))
    await stage.runtime.pipeline.search(SearchSpec("notes", 3, text="x"), context())


async def test_embeddings_of_one_moment_share_a_call(stage: Stage) -> None:
    pipeline = stage.runtime.pipeline
    texts = [("a b",), ("c", "d e f"), ("gg hh",)]
    purpose = EmbedPurpose.QUERY
    done = await asyncio.gather(*(pipeline.embed(t, purpose, context()) for t in texts))
    assert stage.llms[0].embeds == [("a b", "c", "d e f", "gg hh")]
    for mine, (vectors, _) in zip(texts, done, strict=True):
        expected = np.stack([stage.llms[0].vector(t) for t in mine])
        np.testing.assert_array_equal(vectors, expected)
    assert sum(tokens for _, tokens in done) == 8


async def test_a_dead_node_gives_a_partial_answer_and_comes_back(stage: Stage) -> None:
    pipeline = stage.runtime.pipeline
    await stage.kill("ret-1")
    outcome = await pipeline.search(by_vector(0, min_coverage=0.5), context())
    assert outcome.coverage.fraction == 0.5
    assert outcome.coverage.missing == ("shard-1",)
    assert rows_of(outcome) == exact(VECTORS[0], 5, np.arange(0, ROWS, 2))
    with pytest.raises(InsufficientCoverage, match="shard-1"):
        await pipeline.search(by_vector(0, min_coverage=0.6), context())
    await stage.restart("ret-1")
    await until(lambda: stage.runtime.pool.health()[2].ready)

    async def whole() -> bool:
        return (await pipeline.search(by_vector(0), context())).coverage.fraction == 1.0

    for _ in range(200):
        if await whole():
            break
        await asyncio.sleep(0.02)
    assert rows_of(await pipeline.search(by_vector(0), context())) == exact(VECTORS[0], 5)


async def test_with_no_shard_at_all_there_is_no_answer(stage: Stage) -> None:
    await stage.kill("ret-0")
    await stage.kill("ret-1")
    with pytest.raises(InsufficientCoverage, match="shard-0, shard-1"):
        await stage.runtime.pipeline.search(by_vector(0, min_coverage=0.0), context())


async def test_a_call_in_flight_ends_when_its_node_dies(stage: Stage) -> None:
    stage.retrievals[1].pause_s = 3600
    search = asyncio.create_task(stage.runtime.pipeline.search(by_vector(0), context(60)))
    await until(lambda: len(stage.retrievals[1].batches) == 1)
    await stage.kill("ret-1")
    outcome = await asyncio.wait_for(search, 20)
    assert outcome.coverage.fraction == 0.5


async def test_a_replica_takes_over(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, num_shards=1))
    async with running_stage(tmp_path, replicas=2) as stage:
        pipeline = stage.runtime.pipeline
        for row in range(4):
            await pipeline.search(by_vector(row), context())
        assert [len(n.batches) for n in stage.retrievals] == [2, 2]  # in turn
        await stage.kill("ret-0")
        for row in range(4):
            outcome = await pipeline.search(by_vector(row, min_coverage=1.0), context())
            assert rows_of(outcome) == exact(VECTORS[row], 5)
        assert len(stage.retrievals[0].batches) == 2


async def test_a_failing_replica_is_covered_by_the_other(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS, num_shards=1))
    async with running_stage(tmp_path, replicas=2) as stage:
        stage.retrievals[1].failure = UpstreamError("the device is stuck")
        for row in range(4):
            outcome = await stage.runtime.pipeline.search(by_vector(row), context())
            assert outcome.coverage.fraction == 1.0
        assert stage.retrievals[1].batches


async def test_an_overloaded_node_refuses_rather_than_answers_in_part(stage: Stage) -> None:
    stage.retrievals[1].failure = Overloaded("256 searches wait already")
    with pytest.raises(Overloaded):
        await stage.runtime.pipeline.search(by_vector(0), context())


async def test_a_node_that_forgot_its_shards_gets_them_again(stage: Stage) -> None:
    missing: list[tuple[str, ...]] = []
    while ("shard-0",) not in missing:
        # On a busy machine a check may notice, and load, before the search does.
        assert len(missing) < 20
        stage.retrievals[0].loaded.clear()
        outcome = await stage.runtime.pipeline.search(by_vector(0), context())
        missing.append(outcome.coverage.missing)
    await until(lambda: bool(stage.retrievals[0].loaded))
    await until(lambda: stage.runtime.pool.routes(2)[0].group.nodes[0].can_search(
        stage.runtime.catalog.current("notes").id
    ))  # fmt: skip
    assert (await stage.runtime.pipeline.search(by_vector(0), context())).coverage.fraction == 1.0


async def test_a_deadline_is_kept(stage: Stage) -> None:
    stage.retrievals[0].pause_s = 3600
    with pytest.raises(DeadlineExceeded):
        await stage.runtime.pipeline.search(by_vector(0), CallContext.start(0.05))
    await until(lambda: stage.retrievals[0].cancelled == 1, "the node's cancellation")


async def test_the_trace_id_reaches_every_node(stage: Stage) -> None:
    ctx = CallContext.start(20, "0123456789abcdef")
    await collect(stage, ask(), ctx)
    for node in (*stage.llms, *stage.retrievals):
        assert set(node.trace_ids) == {ctx.trace_id}
    assert len(stage.llms[0].trace_ids) == 2


async def test_one_who_leaves_cancels_the_scan(stage: Stage) -> None:
    for node in stage.retrievals:
        node.pause_s = 3600
    search = asyncio.create_task(stage.runtime.pipeline.search(by_vector(0), context()))
    await until(lambda: all(len(n.batches) == 1 for n in stage.retrievals))
    search.cancel()
    await until(lambda: all(n.cancelled == 1 for n in stage.retrievals))
    assert search.cancelled() or search.done()


async def test_one_who_leaves_does_not_disturb_the_others(stage: Stage) -> None:
    stage.retrievals[0].pause_s = 0.1
    pipeline = stage.runtime.pipeline
    tasks = [asyncio.create_task(pipeline.search(by_vector(r), context())) for r in range(3)]
    await until(lambda: len(stage.retrievals[0].batches) == 1)
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    for row in (0, 2):
        outcome = done[row]
        assert isinstance(outcome, SearchOutcome)
        assert rows_of(outcome) == exact(VECTORS[row], 5)
    assert stage.retrievals[0].cancelled == 0


async def test_a_question_streams_retrieval_tokens_citations_and_the_end(stage: Stage) -> None:
    events = await collect(stage, ask())
    kinds = [type(event) for event in events]
    assert kinds == [
        RetrievalEvent, TokenEvent, TokenEvent, TokenEvent, CitationEvent, DoneEvent,
    ]  # fmt: skip
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert done.answer == "All is well [1]."
    assert done.finish_reason == "stop"
    assert done.model == "fake-generator"
    assert [(c.number, c.cited) for c in done.citations] == [(1, True), (2, False), (3, False)]
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (11, 3)
    assert done.usage.embed_tokens == 3
    assert done.timings.first_token_ms is not None
    assert done.timings.prompt_ms is not None
    assert done.timings.total_ms >= done.timings.first_token_ms
    retrieval = events[0]
    assert isinstance(retrieval, RetrievalEvent)
    assert {c.hit.chunk.row_id for c in done.citations} == set(rows_of(retrieval.outcome))


async def test_a_question_about_nothing_stored_is_still_answered(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS[:0], metric=Metric.IP))
    async with running_stage(tmp_path) as stage:
        events = await collect(stage, ask())
        assert isinstance(events[-1], DoneEvent)
        assert events[-1].citations == ()
        assert "No passages were found" in stage.llms[0].generated[0].messages[-1].content


async def test_one_who_stops_listening_stops_the_generation(stage: Stage) -> None:
    llm = stage.llms[0]
    llm.script = ("word ",) * 10_000
    llm.pause_s = 0.01
    events = stage.runtime.pipeline.query(ask(), context())
    async for event in events:
        if isinstance(event, TokenEvent):
            break
    assert llm.running == 1
    await events.aclose()
    await until(lambda: llm.running == 0)
    assert llm.cancelled == 1


async def test_a_cancelled_listener_stops_the_generation(stage: Stage) -> None:
    llm = stage.llms[0]
    llm.script = ("word ",) * 10_000
    llm.pause_s = 0.01
    task = asyncio.create_task(collect(stage, ask()))
    await until(lambda: llm.running == 1 and bool(llm.generated))
    task.cancel()
    await until(lambda: llm.running == 0)
    await asyncio.gather(task, return_exceptions=True)


async def test_sampling_reaches_the_generator(stage: Stage) -> None:
    sampling = Sampling(max_tokens=7, temperature=0.5, seed=3, stop=("END",))
    await collect(stage, ask(sampling=sampling))
    sent = stage.llms[0].generated[0].sampling
    assert (sent.max_tokens, sent.temperature, sent.seed, list(sent.stop)) == (7, 0.5, 3, ["END"])


async def test_the_generator_s_own_error_reaches_the_caller(stage: Stage) -> None:
    stage.llms[0].failure = UpstreamError("the server behind it answered 500", hint="look there")
    pipeline = stage.runtime.pipeline
    events = pipeline.query(replace(ask(), search=by_vector(0)), context())
    assert isinstance(await anext(events), RetrievalEvent)
    with pytest.raises(UpstreamError, match="answered 500") as failed:
        await anext(events)
    assert failed.value.hint == "look there"


async def test_what_a_node_says_is_away_is_not_the_node(stage: Stage) -> None:
    llm = stage.llms[0]
    llm.failure = Unavailable("the server at http://x refuses connections", hint="start it")
    with pytest.raises(Unavailable, match="http://x") as failed:
        await collect(stage, QuerySpec(by_vector(0), "how?"))
    assert failed.value.hint == "start it"
    assert stage.runtime.pool.health()[0].ready
    assert len(llm.generated) == 1


async def test_another_generator_takes_over_before_the_first_word(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    async with running_stage(tmp_path, llm_nodes=2) as stage:
        stage.llms[0].failure = Unavailable("shutting down")
        spec = QuerySpec(by_vector(0), "how?")
        for _ in range(4):
            done = (await collect(stage, spec))[-1]
            assert isinstance(done, DoneEvent)
        assert len(stage.llms[1].generated) == 4


async def test_generations_wait_at_the_gate_and_more_are_refused(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    generate = BatchConfig(max_batch=1, max_queue=1, max_concurrent=1)
    async with running_stage(tmp_path, coordinator=with_stages(generate=generate)) as stage:
        llm = stage.llms[0]
        llm.pause_s = 0.05
        spec = QuerySpec(by_vector(0), "how?")
        tasks = [asyncio.create_task(collect(stage, spec)) for _ in range(4)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [d for d in done if isinstance(d, Overloaded)]
        answered = [d[-1] for d in done if isinstance(d, list)]
        assert (len(refused), len(answered)) == (2, 2)
        waits = sorted(d.timings.queue_ms for d in answered if isinstance(d, DoneEvent))
        assert waits[1] >= 100  # it waited for the pieces of the first


async def test_a_question_over_the_budget_is_refused(tmp_path: Path) -> None:
    write_collection(tmp_path, "notes", Content(VECTORS))
    limits = LimitsConfig(prompt_tokens=300)
    async with running_stage(tmp_path, coordinator=replace(with_stages(), limits=limits)) as stage:
        with pytest.raises(InvalidInput) as refused:
            await collect(stage, QuerySpec(by_vector(0), "why " * 2000))
        assert refused.value.field == "question"


async def test_outcomes_are_counted(stage: Stage) -> None:
    pipeline = stage.runtime.pipeline
    await collect(stage, ask())
    with pytest.raises(RagrigError):
        await pipeline.search(by_vector(0, k=0), context())
    text = stage.runtime.metrics.render().decode()
    assert 'ragrig_operations_total{operation="query",outcome="ok"} 1.0' in text
    assert 'ragrig_operations_total{operation="search",outcome="error"} 1.0' in text
    assert 'ragrig_operations_inflight{operation="query"} 0.0' in text
    assert 'ragrig_errors_total{type="invalid_input"} 1.0' in text
    assert 'ragrig_node_up{kind="retrieval",node="ret-0"} 1.0' in text
    assert 'ragrig_stage_seconds_count{stage="scan"} 1.0' in text
    assert 'ragrig_stage_seconds_count{stage="first_token"} 1.0' in text
    assert 'ragrig_tokens_total{kind="completion"} 3.0' in text
    assert "ragrig_coverage_count 1.0" in text
