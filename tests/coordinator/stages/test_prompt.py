"""What the generator is given, within its budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.stages.prompt import SYSTEM_PROMPT, Prompt, PromptStage
from coordinator.types import Chunk, Hit, QuerySpec, SearchSpec
from ragschema.errors import InvalidInput, Unavailable
from ragschema.types import ChatMessage, Sampling
from tests.coordinator.making import Stage, context, running_stage
from tests.coordinator.waiting import until


def hit(row: int, words: int, document: str | None = None, headings: tuple[str, ...] = ()) -> Hit:
    text = " ".join(f"w{row}-{i}" for i in range(words))
    name = document or f"doc-{row}"
    chunk = Chunk(row, f"c{row}", name, f"Title {name}", row, row + 9, text, headings, words, {})
    return Hit(chunk, -float(row))


def spec(question: str = "why?", history: tuple[ChatMessage, ...] = (), **more: Any) -> QuerySpec:
    return QuerySpec(SearchSpec("c", 5, text=question), question, Sampling(**more), history)


async def build(stage: Stage, hits: tuple[Hit, ...], budget: int, asked: QuerySpec) -> Prompt:
    return await PromptStage(stage.runtime.pool, budget)(asked, hits, context())


def limited(words: int) -> Any:
    def prepare(llms: Any, _: Any) -> None:
        llms[0].limit = words

    return prepare


async def test_passages_are_numbered_and_the_question_comes_last(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        hits = (hit(2, 3), hit(1, 3, headings=("Part", "Section")))
        prompt = await build(stage, hits, 3000, spec())
    system, user = prompt.spec.messages
    assert (system.role, user.role) == ("system", "user")
    assert system.content == SYSTEM_PROMPT
    assert user.content == (
        "Passages:\n\n[1] Title doc-1 / Part / Section\nw1-0 w1-1 w1-2\n\n"
        "[2] Title doc-2\nw2-0 w2-1 w2-2\n\nQuestion: why?"
    )
    assert {n: h.chunk.row_id for n, h in prompt.hits.items()} == {1: 1, 2: 2}
    assert prompt.spec.question == "why?"


async def test_parts_stay_in_rank_order_under_the_same_numbers(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        prompt = await build(stage, (hit(5, 2), hit(3, 2), hit(4, 2)), 3000, spec())
    assert [(p.number, p.text) for p in prompt.spec.passages] == [
        (3, "w5-0 w5-1"), (1, "w3-0 w3-1"), (2, "w4-0 w4-1"),
    ]  # fmt: skip
    for passage in prompt.spec.passages:
        assert prompt.hits[passage.number].chunk.text == passage.text


async def test_equal_passages_give_an_equal_beginning_however_they_rank(tmp_path: Path) -> None:
    hits = (hit(1, 5), hit(7, 5, "doc-1"), hit(3, 5))
    async with running_stage(tmp_path) as stage:
        one = await build(stage, hits, 3000, spec("why?"))
        two = await build(stage, hits[::-1], 3000, spec("how?"))
    assert one.spec.messages[0] == two.spec.messages[0]
    first, second = one.spec.messages[1].content, two.spec.messages[1].content
    assert first.removesuffix("why?") == second.removesuffix("how?")


async def test_the_lowest_ranks_are_dropped_first(tmp_path: Path) -> None:
    hits = tuple(hit(row, 100) for row in (9, 4, 7, 1))
    async with running_stage(tmp_path) as stage:
        prompt = await build(stage, hits, 400, spec())
        assert not stage.llms[0].generated
    kept = {h.chunk.row_id for h in prompt.hits.values()}
    assert kept == {9, 4}


async def test_the_best_passage_is_cut_rather_than_dropped(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        prompt = await build(stage, (hit(1, 5000),), 500, spec())
    (passage,) = prompt.spec.passages
    assert 0 < len(passage.text) < len(prompt.hits[1].chunk.text)
    assert prompt.hits[1].chunk.text.startswith(passage.text)


async def test_a_limited_generator_counts_in_its_own_tokens(tmp_path: Path) -> None:
    fixed = len(SYSTEM_PROMPT.split()) + 1 + 24
    async with running_stage(tmp_path, prepare=limited(400)) as stage:
        hits = tuple(hit(row, 40) for row in range(9))
        prompt = await build(stage, hits, 3000, spec(max_tokens=100))
    # Each passage takes its words, two words of title and eight tokens of frame.
    assert len(prompt.hits) == (400 - 100 - fixed) // (40 + 2 + 8)
    assert sorted(h.chunk.row_id for h in prompt.hits.values()) == list(range(len(prompt.hits)))


async def test_a_limited_generator_gets_its_best_passage_cut_at_a_token(tmp_path: Path) -> None:
    async with running_stage(tmp_path, prepare=limited(400)) as stage:
        prompt = await build(stage, (hit(1, 900),), 3000, spec(max_tokens=100))
    (passage,) = prompt.spec.passages
    words = passage.text.split()
    assert words == [f"w1-{i}" for i in range(len(words))]
    assert 100 < len(words) < 300


async def test_the_answer_never_takes_more_than_half_of_the_window(tmp_path: Path) -> None:
    async with running_stage(tmp_path, prepare=limited(600)) as stage:
        prompt = await build(stage, (hit(1, 20),), 3000, spec(max_tokens=100_000))
    assert len(prompt.hits) == 1


async def test_a_question_without_room_is_refused(tmp_path: Path) -> None:
    async with running_stage(tmp_path, prepare=limited(400)) as stage:
        with pytest.raises(InvalidInput, match="room for 300") as refused:
            await build(stage, (), 3000, spec("x " * 400, max_tokens=100))
    assert refused.value.field == "question"


async def test_the_newest_turns_of_a_chat_are_kept(tmp_path: Path) -> None:
    turns = tuple(ChatMessage(("user", "assistant")[i % 2], f"turn{i} " * 40) for i in range(20))
    rule = ChatMessage("system", "Answer in verse.")
    async with running_stage(tmp_path, prepare=limited(600)) as stage:
        prompt = await build(
            stage, (hit(1, 30),), 3000, spec(history=(rule, *turns), max_tokens=50)
        )
    system, *middle, last = prompt.spec.messages
    assert system.content == f"{SYSTEM_PROMPT}\n\nAnswer in verse."
    assert 0 < len(middle) < 20
    assert tuple(middle) == turns[20 - len(middle) :]
    assert last.content.endswith("Question: why?")
    assert len(prompt.hits) == 1


async def test_no_passages_are_said_to_be_none(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        prompt = await build(stage, (), 3000, spec())
    assert prompt.spec.messages[-1].content == "No passages were found.\n\nQuestion: why?"
    assert prompt.hits == {}


async def test_no_generator_no_prompt(tmp_path: Path) -> None:
    async with running_stage(tmp_path) as stage:
        await stage.kill("llm-0")
        await until(lambda: not stage.runtime.pool.health()[0].ready)
        with pytest.raises(Unavailable, match="generates"):
            await build(stage, (), 3000, spec())
