"""A decode node that takes over behind an answer's last token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from llm_node.engine.admit import finish_behind
from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Finish, TokenOut
from llm_node.generate import hf
from llm_node.generate.hf import HfGenerator
from llm_node.roles import GeneratorDeps
from llm_node.transfer.decode import Decoded, decode
from llm_node.transfer.known import known_tokens, read_again
from llm_node.transfer.prefill import prefill
from ragschema.errors import InvalidInput, PayloadTooLarge
from ragschema.types import CallContext, ChatMessage, GenerateEnd, GenerateSpec, Sampling
from ragschema.wire import kv_pb2

EOS = frozenset({1})
#: Text, why it ended, tokens of the prompt and of the answer.
Told = tuple[str, str, int, int]


@pytest.fixture
async def generator(tiny_llama: Path) -> AsyncGenerator[HfGenerator, None]:
    started = hf.load(str(tiny_llama), GeneratorDeps())
    await started.start()
    yield started
    started.engine.check_integrity()
    await started.close()


def spec(**sampling: Any) -> GenerateSpec:
    turn = ChatMessage("user", "naïve 漢字 and the quick brown fox")
    return GenerateSpec((turn,), "", (), Sampling(**sampling))


async def ids_of(generator: HfGenerator, asked: GenerateSpec) -> dict[int, list[int]]:
    """What the engine draws, by index; it knows no stop strings."""
    request = generator.request(generator.encode(asked), asked, CallContext.start(60))
    ids: dict[int, list[int]] = {index: [] for index in range(asked.sampling.n)}
    async with aclosing(generator.worker.stream(request)) as events:
        async for event in events:
            if isinstance(event, TokenOut):
                ids[event.index].append(event.token_id)
    return ids


async def told(events: AsyncGenerator[Any, None]) -> dict[int, Told]:
    texts: dict[int, str] = {}
    ends: dict[int, Told] = {}
    async with aclosing(events) as stream:
        async for event in stream:
            assert event.index not in ends, "nothing comes behind an end"
            if isinstance(event, GenerateEnd):
                counts = (event.prompt_tokens, event.completion_tokens)
                text = texts.get(event.index, "")
                ends[event.index] = (text, event.finish_reason, *counts)
            else:
                texts[event.index] = texts.get(event.index, "") + event.text
    return ends


async def whole(generator: HfGenerator, asked: GenerateSpec) -> dict[int, Told]:
    return await told(generator.generate(asked, CallContext.start(60)))


async def no_kv() -> KvSnapshot:
    raise AssertionError("KV was asked for")


async def stop_of(generator: HfGenerator) -> str:
    """A few characters from the middle of the greedy answer."""
    text = (await whole(generator, spec(max_tokens=20)))[0][0]
    return text[7:9]


@pytest.mark.parametrize("case", ["length", "context", "stop id", "eos", "stop", "min", "first"])
async def test_an_answer_that_has_ended_is_told_without_kv(
    generator: HfGenerator, case: str
) -> None:
    greedy = (await ids_of(generator, spec(max_tokens=12)))[0]
    repeated = next(i for i in greedy[4:] if i not in greedy[:4])
    asked = {
        "length": spec(max_tokens=12),
        "context": spec(max_tokens=1000),
        "stop id": spec(max_tokens=12, stop_ids=(repeated,)),
        "eos": spec(max_tokens=12),
        "stop": spec(max_tokens=20, stop=(await stop_of(generator),)),
        "min": spec(max_tokens=20, stop=(await stop_of(generator),), min_tokens=20),
        "first": spec(max_tokens=1),
    }[case]
    expected = (await whole(generator, asked))[0]
    ids = (await ids_of(generator, asked))[0][: expected[3]]
    if case == "eos":
        ids = [*greedy[:5], 1]
        text = (await whole(generator, spec(max_tokens=5)))[0][0]
        expected = (text, "stop", expected[2], 6)
    call = CallContext.start(60)
    events = [e async for e in decode(generator, no_kv, asked, {0: ids}, call)]
    assert all(not e.token_ids for e in events if isinstance(e, Decoded))
    assert "".join(e.text for e in events if isinstance(e, Decoded)) == expected[0]
    end = events[-1]
    assert isinstance(end, GenerateEnd)
    assert (end.finish_reason, end.prompt_tokens, end.completion_tokens) == expected[1:]


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 9},
        {"max_tokens": 9, "temperature": 1.1, "top_k": 8, "seed": 5, "n": 3},
        {"max_tokens": 14, "stop": ("7",)},
        {"max_tokens": 14, "stop": ("7",), "min_tokens": 10},
        {"max_tokens": 14, "stop_ids": (38,), "min_tokens": 3},
        {"max_tokens": 200, "temperature": 1.1, "top_k": 8, "seed": 5, "n": 2},
    ],
)
async def test_it_is_the_same_answer_wherever_a_node_takes_over(
    generator: HfGenerator, sampling: dict[str, Any]
) -> None:
    asked = spec(**sampling)
    expected = await whole(generator, asked)
    ids = {i: found[: expected[i][3]] for i, found in (await ids_of(generator, asked)).items()}
    first = await prefill(generator, generator.encode(asked), asked, CallContext.start(60))

    async def pull() -> KvSnapshot:
        assert first.snapshot is not None
        return first.snapshot

    longest = max(map(len, ids.values()))
    for place in sorted({1, 2, 5, longest - 1, longest, *range(6, min(longest, 15))}):
        known = {index: found[:place] for index, found in ids.items()}
        got = await told(decode(generator, pull, asked, known, CallContext.start(60)))
        assert got == expected, place


async def test_what_the_engine_is_given_has_not_ended(generator: HfGenerator) -> None:
    asked = spec(max_tokens=4)
    prompt = generator.encode(asked)
    first = await prefill(generator, prompt, asked, CallContext.start(60))
    assert first.snapshot is not None
    request = generator.request(prompt, asked, CallContext.start(60))
    ended = {0: (await ids_of(generator, asked))[0]}
    with pytest.raises(InvalidInput, match="4 known tokens end") as caught:
        await anext(generator.worker.stream_imported(request, first.snapshot, ended))
    assert caught.value.field == "output_ids"


@pytest.mark.parametrize(
    ("sampling", "token_id", "made", "finish"),
    [
        ({"max_tokens": 5}, 7, 4, None),
        ({"max_tokens": 5}, 7, 5, Finish.LENGTH),
        ({"max_tokens": 5}, 1, 5, Finish.STOP),
        ({"max_tokens": 5}, 1, 2, Finish.STOP),
        ({"max_tokens": 5, "ignore_eos": True}, 1, 2, None),
        ({"max_tokens": 5, "ignore_eos": True}, 1, 5, Finish.LENGTH),
        ({"max_tokens": 5, "stop_ids": (7,)}, 7, 1, Finish.STOP),
        ({"max_tokens": 5, "stop_ids": (7,), "ignore_eos": True}, 7, 1, Finish.STOP),
        ({"max_tokens": 5, "stop_ids": (7,), "min_tokens": 3}, 7, 2, None),
        ({"max_tokens": 5, "min_tokens": 3}, 1, 3, Finish.STOP),
    ],
)
def test_what_ends_a_sequence(
    sampling: dict[str, Any], token_id: int, made: int, finish: Finish | None
) -> None:
    assert finish_behind(Sampling(**sampling), EOS, token_id, made) is finish


class Unread(Sequence[int]):
    """Tokens of which nothing but the number may be looked at."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("it was read before it was counted")


def answers(*known: Sequence[int]) -> list[kv_pb2.KnownAnswer]:
    return [kv_pb2.KnownAnswer(token_ids=ids) for ids in known]


@pytest.mark.parametrize(("max_tokens", "most"), [(10, 10), (1 << 20, 127)])
async def test_too_many_tokens_are_refused_unread(
    generator: HfGenerator, max_tokens: int, most: int
) -> None:
    sampling, engine = Sampling(max_tokens=max_tokens, n=2), generator.engine
    fits = answers([5] * most, [6])
    assert known_tokens(fits, sampling, engine) == {0: (5,) * most, 1: (6,)}

    class Long:
        token_ids = Unread(most + 1)
        ended = False

    with pytest.raises(PayloadTooLarge, match=rf"{most + 1} tokens .* may have {most}") as caught:
        known_tokens([*answers([5]), cast("Any", Long())], sampling, engine)
    assert caught.value.field == "answers.1.token_ids"


async def test_tokens_of_another_vocabulary_are_refused(generator: HfGenerator) -> None:
    beyond = generator.engine.model.vocabulary
    with pytest.raises(InvalidInput, match=f"from 5 to {beyond}") as caught:
        known_tokens(answers([5, beyond]), Sampling(max_tokens=10), generator.engine)
    assert caught.value.field == "answers.0.token_ids"


async def test_answers_must_be_those_that_were_asked_for(generator: HfGenerator) -> None:
    over = kv_pb2.KnownAnswer(token_ids=[5] * 99, ended=True)
    sampling = Sampling(max_tokens=10, n=2)
    # Of one that has ended nothing is needed.
    assert known_tokens([over, *answers([])], sampling, generator.engine) == {1: ()}
    for wrong, message in (([], "0 answers"), ([over], "1 answers"), ([over, over], "ended")):
        with pytest.raises(InvalidInput, match=message) as caught:
            known_tokens(wrong, sampling, generator.engine)
        assert caught.value.field == "answers"


async def test_others_are_served_while_much_is_read_again(generator: HfGenerator) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    before = turns
    found = await read_again(generator, spec(max_tokens=5000), EOS, {0: [5] * 2000})
    task.cancel()
    assert found[0].tokens == 2000
    assert turns > before + 3
