"""Answers that ask while they are written: real LLM node, searches by brute force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.runtime import Runtime
from coordinator.stages.interval import passage_text
from coordinator.types import (
    CitationEvent,
    DoneEvent,
    QuerySpec,
    RetrievalEvent,
    SearchSpec,
    TokenEvent,
)
from ragschema.errors import InvalidInput
from ragschema.generation import GenerationConfig, IntervalConfig
from ragschema.rig import (
    BatchConfig,
    CoordinatorConfig,
    LlmNodeConfig,
    RetrievalNodeConfig,
    RigConfig,
    StagesConfig,
    parse_rig,
)
from ragschema.types import Sampling
from tests.coordinator.making import (
    DIM,
    FAST,
    FOLLOW,
    Content,
    context,
    unit_vectors,
    write_collection,
)
from tests.coordinator.waiting import until
from tests.fake_nodes import FakeLlm, FakeRetrieval, FakeServer

ROWS = 60
VECTORS = unit_vectors(ROWS)
K = 2


class Rig:
    """A coordinator with an embedder and a retrieval node that are stand-ins."""

    def __init__(self, runtime: Runtime, embedder: FakeLlm, retrieval: FakeRetrieval) -> None:
        self.runtime = runtime
        self.embedder = embedder
        self.retrieval = retrieval

    async def ask(self, question: str, tokens: int, **sampling: Any) -> tuple[DoneEvent, list[Any]]:
        options = Sampling(max_tokens=tokens, **sampling)
        spec = QuerySpec(SearchSpec("notes", K, text=question), question, options)
        async with aclosing(self.runtime.pipeline.query(spec, context(60))) as events:
            told = [event async for event in events]
        assert isinstance(told[-1], DoneEvent)
        return told[-1], told

    def nearest(self, text: str, k: int) -> list[int]:
        far = -(VECTORS @ self.embedder.vector(text))
        return [int(row) for row in np.lexsort((np.arange(ROWS), far))[:k]]


@asynccontextmanager
async def rig(tmp_path: Path, writer: str, config: GenerationConfig) -> AsyncIterator[Rig]:
    write_collection(tmp_path, "notes", Content(VECTORS, num_shards=1))
    embedder, retrieval = FakeLlm("emb", DIM), FakeRetrieval("ret", tmp_path)
    iterative = BatchConfig(max_batch=4, max_wait_ms=200.0)
    async with FakeServer(embedder) as one, FakeServer(retrieval) as two:
        runtime = Runtime(
            RigConfig(
                data_dir=str(tmp_path),
                coordinator=CoordinatorConfig(
                    generation=config, stages=StagesConfig(iterative=iterative)
                ),
                llm_nodes=(
                    LlmNodeConfig(name="emb", roles=("embed",), address=one.address),
                    LlmNodeConfig(name="gen", roles=("generate",), address=writer),
                ),
                retrieval_nodes=(RetrievalNodeConfig(name="ret", address=two.address),),
            ),
            FAST,
            FOLLOW,
        )
        embedder.roles = ("embed",)
        await runtime.open()
        try:
            await until(lambda: all(h.ready for h in runtime.pool.health()))
            yield Rig(runtime, embedder, retrieval)
        finally:
            await runtime.stop()


INTERVAL = GenerationConfig(
    kind="interval", interval=IntervalConfig(every_tokens=6, k=3, max_rounds=2, recent_tokens=5)
)


async def test_the_context_is_what_the_answers_end_finds(
    tmp_path: Path, writer: str, llama: Path
) -> None:
    """Every token, from the engine itself, given the passages that brute force finds."""
    async with rig(tmp_path, writer, INTERVAL) as made:
        done, told = await made.ask("where is the fox?", 20)
        assert isinstance(told[0], RetrievalEvent)
        prompt = await made.runtime.pipeline._prompt(
            QuerySpec(SearchSpec("notes", K), "where is the fox?", Sampling(max_tokens=20)),
            told[0].outcome.hits,
            context(),
        )
        reference = Reference(llama, prompt.spec)
        hits = {number: hit.chunk.row_id for number, hit in prompt.hits.items()}
        for _ in range(2):
            recent = reference.write(6)[-5:]
            rows = made.nearest(reference.text(recent).strip(), 3)
            for row in (r for r in rows if r not in set(hits.values())):
                number = len(hits) + 1
                hits[number] = row
                hit = next(c.hit for c in done.citations if c.number == number)
                assert hit.chunk.row_id == row
                reference.read(passage_text(number, hit))
        reference.write(8)
        assert done.answer == reference.text(reference.made)
        assert {c.number: c.hit.chunk.row_id for c in done.citations} == hits
        assert len(hits) > K, "no round found anything new"
        assert done.usage.completion_tokens == 20
        assert "".join(e.text for e in told if isinstance(e, TokenEvent)) == done.answer
        assert all(isinstance(e, RetrievalEvent | TokenEvent | CitationEvent) for e in told[:-1])


class Reference:
    """Greedy decoding by transformers itself, one token after the other."""

    def __init__(self, directory: Path, spec: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from llm_node.generate.hf import load_chat_tokenizer
        from llm_node.generate.prompt import plain_prompt

        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self._tokenizer = load_chat_tokenizer(directory)
        self._ids: list[int] = self._tokenizer(plain_prompt(spec.messages))["input_ids"]
        self.made: list[int] = []

    def write(self, tokens: int) -> list[int]:
        import torch

        for _ in range(tokens):
            with torch.no_grad():
                best = int(self._model(torch.tensor([self._ids])).logits[0, -1].argmax())
            self._ids.append(best)
            self.made.append(best)
        return self.made

    def read(self, text: str) -> None:
        self._ids += self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


async def test_answers_that_wait_together_are_searched_for_together(
    tmp_path: Path, writer: str
) -> None:
    async with rig(tmp_path, writer, INTERVAL) as made:
        before = len(made.retrieval.batches)
        await asyncio.gather(*(made.ask(f"question {n}", 20) for n in range(4)))
        sizes = [len(batch.queries) for batch in made.retrieval.batches[before:]]
        # Four questions at once, then two rounds of each.
        assert sum(sizes) == 12
        assert max(sizes) > 1
        rendered = made.runtime.metrics.render().decode()
        assert 'ragrig_batch_requests_count{stage="iterative"}' in rendered


async def test_several_answers_ask_each_by_itself(tmp_path: Path, writer: str) -> None:
    """Greedy ones are equal to one alone; drawn ones find passages of their own."""
    async with rig(tmp_path, writer, INTERVAL) as made:
        alone, _ = await made.ask("where is the fox?", 20)
        before = len(made.retrieval.batches)
        same, told = await made.ask("where is the fox?", 20, n=3)
        sizes = [len(batch.queries) for batch in made.retrieval.batches[before:]]
        # A question, and two rounds of each answer; those that wait together share calls.
        assert sum(sizes) == 1 + 6
        assert max(sizes) > 1
        assert [choice.answer for choice in same.choices] == [alone.answer] * 3
        assert {c.number: c.hit.chunk.row_id for c in same.citations} == {
            c.number: c.hit.chunk.row_id for c in alone.citations
        }
        for index in range(3):
            pieces = (e.text for e in told if isinstance(e, TokenEvent) and e.index == index)
            assert "".join(pieces) == alone.answer
        drawn, _ = await made.ask("where is the fox?", 20, n=2, temperature=1.0, seed=3)
        assert drawn.choices[0].answer != drawn.choices[1].answer
        found = {c.number: c.hit.chunk.row_id for one in drawn.choices for c in one.citations}
        assert len(set(found.values())) == len(found), "a passage has one number in all answers"


async def test_a_failed_search_leaves_the_answer_as_it_is(tmp_path: Path, writer: str) -> None:
    plain = replace(INTERVAL, kind="plain")
    (tmp_path / "a").mkdir()
    async with rig(tmp_path / "a", writer, plain) as made:
        expected, _ = await made.ask("where is the fox?", 20)
    (tmp_path / "b").mkdir()
    async with rig(tmp_path / "b", writer, INTERVAL) as made:
        embedded = made.embedder.vector

        def failing_later(text: str) -> Any:
            if text != "where is the fox?":
                raise InvalidInput("no such thing")
            return embedded(text)

        made.embedder.vector = failing_later  # type: ignore[method-assign]
        done, _ = await made.ask("where is the fox?", 20)
    assert done.answer == expected.answer
    assert len(done.citations) == K


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("kind: knn", "coordinator.generation.knn"),
        ("kind: interval\n    interval: {every_tokens: null}", "interval.every_tokens"),
        ("kind: sometimes", "coordinator.generation.kind"),
        ("kind: knn\n    knn: {collection: c, lam: 2.0}", "coordinator.generation.knn.lam"),
        ("kind: knn\n    knn: {collection: c, k: 101}", "coordinator.generation.knn.k"),
        ("kinds: plain", "coordinator.generation.kinds"),
    ],
)
def test_a_mistake_names_the_field(text: str, field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rig(f"coordinator:\n  generation:\n    {text}\n", "rig.yaml", tmp_path)
    assert (caught.value.field or "").endswith(field)
