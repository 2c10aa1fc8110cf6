from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from llm_node.generate import extractive
from llm_node.generate.extractive import HEADER, NOTHING_FOUND, ExtractiveGenerator
from llm_node.roles import GeneratorDeps, load_generator
from llm_node.tokens import word_offsets
from ragschema.errors import DeadlineExceeded, InvalidInput
from ragschema.types import (
    F32,
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Passage,
    Sampling,
    TokenPiece,
)

PASSAGES = (
    Passage(1, "heapq", "Heaps are trees. The function merge joins sorted inputs into one."),
    Passage(4, "bisect", "Bisection finds a place. It keeps a list sorted.\n\n>>> bisect([1], 2)"),
    Passage(7, "json", "JSON is a format. Loading needs text."),
)
MERGE = "How can I merge sorted inputs?"


def _spec(question: str = MERGE, passages: Sequence[Passage] = PASSAGES, **sampling: object):  # type: ignore[no-untyped-def]
    return GenerateSpec((), question, tuple(passages), Sampling(**sampling))  # type: ignore[arg-type]


async def _answer(
    spec: GenerateSpec, generator: ExtractiveGenerator | None = None
) -> tuple[str, GenerateEnd, list[TokenPiece]]:
    pieces: list[TokenPiece] = []
    async for event in (generator or ExtractiveGenerator()).generate(spec, CallContext.start(30)):
        if isinstance(event, GenerateEnd):
            return "".join(p.text for p in pieces), event, pieces
        pieces.append(event)
    raise AssertionError("no end")


async def test_quotes_the_sentence_that_answers_and_cites_it() -> None:
    text, end, pieces = await _answer(_spec())
    first, second = text.split("\n")[:2]
    assert first == HEADER
    assert "extractive" in first.lower()
    assert second == "The function merge joins sorted inputs into one. [1]"
    assert end.finish_reason == "stop"
    assert len(pieces) > 5
    assert sum(p.tokens for p in pieces) == end.completion_tokens == len(word_offsets([text])[0])


async def test_invents_nothing() -> None:
    text, _, _ = await _answer(_spec("sorted list format"))
    for line in text.split("\n")[1:]:
        for quote, number in re.findall(r"\s*(.*?) \[(\d+)\]", line):
            source = next(p.text for p in PASSAGES if p.number == int(number))
            assert quote in source


async def test_sentences_stand_in_the_order_of_the_passages() -> None:
    generator = ExtractiveGenerator(
        config=extractive.ExtractiveConfig(max_sentences=4, keep_ratio=0.0)
    )
    text, _, _ = await _answer(_spec(), generator)
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", text)]
    assert len(numbers) == 4
    assert numbers == sorted(numbers)


async def test_the_same_question_gives_the_same_answer() -> None:
    assert (await _answer(_spec()))[0] == (await _answer(_spec()))[0]


@pytest.mark.parametrize(
    "passages", [(), (Passage(1, "t", "  \n"),), (Passage(1, "t", "# Title"),)]
)
async def test_no_passages_says_that_nothing_was_found(passages: tuple[Passage, ...]) -> None:
    text, end, _ = await _answer(_spec(passages=passages))
    assert text == NOTHING_FOUND
    assert end.finish_reason == "stop"


@pytest.mark.parametrize("budget", [1, 5, 12, 20, 30, 50])
async def test_max_tokens_is_kept(budget: int) -> None:
    text, end, _ = await _answer(_spec(max_tokens=budget))
    assert len(word_offsets([text])[0]) <= budget
    assert end.completion_tokens <= budget
    whole = text.endswith("]")
    assert end.finish_reason == ("stop" if whole else "length")


async def test_a_sentence_that_fits_is_preferred_to_half_of_a_better_one() -> None:
    long = "merge sorted inputs " * 30 + "."
    passages = (Passage(1, "", f"Intro words. {long}"), Passage(2, "", "Merge is a function."))
    text, end, _ = await _answer(_spec(passages=passages, max_tokens=30))
    assert "Merge is a function. [2]" in text
    assert end.finish_reason == "stop"


async def test_repeated_sentences_are_quoted_once() -> None:
    same = "The function merge joins sorted inputs into one."
    text, _, _ = await _answer(_spec(passages=(Passage(1, "", same), Passage(2, "", same))))
    assert text.count(same) == 1


async def test_question_in_the_chat_alone_is_read() -> None:
    spec = GenerateSpec((ChatMessage("user", MERGE),), "", PASSAGES)
    assert (await _answer(spec))[0] == (await _answer(_spec()))[0]


async def test_stop_strings_are_cut() -> None:
    text, end, _ = await _answer(_spec(stop=("joins so",)))
    assert text.endswith("The function merge ")
    assert end.finish_reason == "stop"


async def test_meaning_can_outweigh_words() -> None:
    async def similar(question: str, sentences: Sequence[str]) -> F32:
        assert question == MERGE
        return np.array([float("format" in s) for s in sentences], dtype=np.float32)

    text, _, _ = await _answer(_spec(), ExtractiveGenerator(similar))
    assert "JSON is a format. [7]" in text


async def test_passed_deadline_is_an_error() -> None:
    events = ExtractiveGenerator().generate(_spec(), CallContext.start(-1))
    with pytest.raises(DeadlineExceeded):
        await anext(events)


def test_options_behind_the_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="extractive:fast"):
        load_generator("extractive:fast", GeneratorDeps())
    with pytest.raises(InvalidInput, match="'magic' is no generator"):
        load_generator("magic", GeneratorDeps())
