from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_node.augment.plan import (
    AugmentPlan,
    Found,
    FoundNeighbours,
    FoundPassages,
    IntervalPlan,
    NeighbourPlan,
    Wanted,
)
from llm_node.augment.session import AugmentEnd, Session
from llm_node.augment.states import hidden_states
from llm_node.engine.admit import seed_of
from llm_node.generate import hf
from llm_node.generate.hf import HfGenerator
from llm_node.roles import GeneratorDeps
from ragschema.errors import InvalidInput, PayloadTooLarge
from ragschema.types import CallContext, ChatMessage, GenerateSpec, Sampling, TokenPiece


@pytest.fixture
async def generator(long_llama: Path) -> AsyncIterator[HfGenerator]:
    made = hf.load(str(long_llama), GeneratorDeps())
    await made.start()
    yield made
    assert (await made.worker.stats()).blocks_used == 0
    await made.close()
    made.engine.check_integrity()


def spec(text: str = "the quick brown fox", **sampling: Any) -> GenerateSpec:
    return GenerateSpec((ChatMessage("user", text),), "", (), Sampling(**sampling))


def interval(every: int | None, rounds: int = 9, triggers: tuple[str, ...] = ()) -> IntervalPlan:
    return IntervalPlan(every, triggers, rounds, recent_tokens=6, want_hidden=False)


class Caller:
    """Answers in turn, and keeps what was asked and told."""

    def __init__(self, answers: Sequence[Found]) -> None:
        self._answers = list(answers)
        self.wanted: list[Wanted] = []
        self.text = ""
        self.end: AugmentEnd | None = None

    async def run(self, generator: HfGenerator, plan: AugmentPlan) -> Caller:
        session = Session(generator, plan, CallContext.start(60))
        async for event in session.run(self._answer):
            if isinstance(event, Wanted):
                self.wanted.append(event)
            elif isinstance(event, TokenPiece):
                self.text += event.text
            else:
                self.end = event
        assert self.end is not None
        return self

    async def _answer(self) -> tuple[int, Found]:
        await asyncio.sleep(0.001)
        return 0, self._answers.pop(0)


def reference(directory: Path, generator: HfGenerator, parts: Sequence[tuple[int, str]]) -> str:
    """Transformers' own greedy tokens: so many, then a passage that is read, and so on."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = generator.encode(spec())
    made: list[int] = []
    for tokens, passage in parts:
        for _ in range(tokens):
            with torch.no_grad():
                best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(best)
            made.append(best)
        ids += generator.ids_of(passage)
    return generator.text_of(made)


async def test_passages_become_context_where_the_sequence_paused(
    generator: HfGenerator, long_llama: Path
) -> None:
    passages = ["merge(a, b) sorted. ", "naïve café 漢字 "]
    plan = AugmentPlan(spec(max_tokens=14), interval(5))
    found = [FoundPassages((passages[0],)), FoundPassages((passages[1],))]
    caller = await Caller(found).run(generator, plan)
    whole = [(5, passages[0]), (5, passages[1]), (4, "")]
    assert caller.text == reference(long_llama, generator, whole)
    assert [(w.round, w.reason) for w in caller.wanted] == [(1, "interval"), (2, "interval")]
    assert caller.wanted[0].recent == reference(long_llama, generator, [(5, "")])
    assert caller.end is not None
    assert caller.end.rounds == 2
    assert caller.end.end.completion_tokens == 14
    assert caller.end.context_tokens == sum(len(generator.ids_of(p)) for p in passages)
    # And without passages nothing changes.
    silent = await Caller([FoundPassages(())] * 2).run(generator, plan)
    assert silent.text == reference(long_llama, generator, [(14, "")])
    assert silent.text != caller.text


async def test_rounds_are_bounded_and_others_go_on_meanwhile(generator: HfGenerator) -> None:
    plan = AugmentPlan(spec(max_tokens=30), interval(2, rounds=3))
    waits = asyncio.Event()

    class Slow(Caller):
        async def _answer(self) -> tuple[int, Found]:
            await waits.wait()
            return await super()._answer()

    slow = asyncio.create_task(Slow([FoundPassages(("x ",))] * 3).run(generator, plan))
    await asyncio.sleep(0.05)
    other = await Caller([FoundPassages(("y ",))] * 3).run(generator, plan)
    assert other.end is not None
    assert other.end.end.completion_tokens == 30
    assert not slow.done()
    waits.set()
    assert [w.round for w in (await slow).wanted] == [1, 2, 3]


async def test_a_trigger_token_asks(generator: HfGenerator, long_llama: Path) -> None:
    plain = reference(long_llama, generator, [(20, "")])
    candidates = [c for c in dict.fromkeys(plain) if len(generator.ids_of(c)) == 1]
    ids = generator.ids_of(plain)
    trigger = next(c for c in candidates if generator.ids_of(c)[0] in ids)
    plan = AugmentPlan(spec(max_tokens=20), interval(None, triggers=(trigger,)))
    caller = await Caller([FoundPassages(())] * 20).run(generator, plan)
    assert caller.text == plain
    assert caller.wanted
    assert all(w.reason == "trigger" and w.recent.endswith(trigger) for w in caller.wanted)
    two = AugmentPlan(spec(), interval(None, triggers=("two tokens and more",)))
    with pytest.raises(InvalidInput, match="tokens of hf:") as caught:
        await Caller([]).run(generator, two)
    assert caught.value.field == "triggers"


async def test_passages_leave_room_for_the_answer(tiny_llama: Path) -> None:
    """128 tokens of context; what does not fit is left out whole, and counted."""
    small = hf.load(str(tiny_llama), GeneratorDeps())
    await small.start()
    try:
        plan = AugmentPlan(spec(max_tokens=12), interval(4))
        found = [FoundPassages(("fits ", "z" * 200, "after ")), FoundPassages(("more ",))]
        caller = await Caller(found).run(small, plan)
        assert caller.end is not None
        assert caller.end.dropped == 2
        assert caller.end.end.completion_tokens == 12
        fitting = len(small.ids_of("fits ")) + len(small.ids_of("more "))
        assert caller.end.context_tokens == fitting
    finally:
        await small.close()


async def test_neighbours_and_model_are_mixed(generator: HfGenerator, long_llama: Path) -> None:
    """Greedy tokens from numpy's mixture of transformers' probabilities with neighbours'."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(long_llama, dtype=torch.float32).eval()
    rng = np.random.default_rng(8)
    lam, temperature = 0.4, 2.0
    found = [
        FoundNeighbours(
            rng.integers(2, 320, 6).astype(np.int32), rng.random(6).astype(np.float32) * 9
        )
        for _ in range(10)
    ]
    plan = AugmentPlan(spec(max_tokens=10), NeighbourPlan(lam, temperature))
    caller = await Caller(found).run(generator, plan)

    ids, made, changed = generator.encode(spec()), [], 0
    for one, wanted in zip(found, caller.wanted, strict=True):
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        logits = out.logits[0, -1].double().numpy()
        assert wanted.hidden is not None
        np.testing.assert_allclose(wanted.hidden, out.hidden_states[-1][0, -1], atol=1e-4)
        p_lm = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        weights = np.exp(-one.distances / temperature)
        p_knn = np.zeros_like(p_lm)
        np.add.at(p_knn, one.tokens, weights / weights.sum())
        best = int((lam * p_knn + (1 - lam) * p_lm).argmax())
        changed += best != int(p_lm.argmax())
        ids.append(best)
        made.append(best)
    assert caller.text == generator.text_of(made)
    assert changed, "the neighbours never mattered"


async def test_an_answer_of_the_wrong_kind_is_refused(generator: HfGenerator) -> None:
    plan = AugmentPlan(spec(max_tokens=9), interval(2))
    nothing = FoundNeighbours(np.zeros(0, np.int32), np.zeros(0, np.float32))
    with pytest.raises(InvalidInput, match="do not answer"):
        await Caller([nothing]).run(generator, plan)


class Several:
    """Answers whoever waits, the latest first, and keeps what each said."""

    def __init__(self, answer: Callable[[Wanted], Found], at_once: int) -> None:
        self._answer = answer
        self._at_once = at_once
        self._open: list[Wanted] = []
        self.wanted: dict[int, list[Wanted]] = {}
        self.texts: dict[int, str] = {}
        self.ends: dict[int, AugmentEnd] = {}
        self.most_open = 0

    async def run(self, generator: HfGenerator, plan: AugmentPlan) -> Several:
        session = Session(generator, plan, CallContext.start(60))
        async for event in session.run(self._next):
            if isinstance(event, Wanted):
                self.wanted.setdefault(event.index, []).append(event)
                self._open.append(event)
                self.most_open = max(self.most_open, len(self._open))
            elif isinstance(event, TokenPiece):
                self.texts[event.index] = self.texts.get(event.index, "") + event.text
            else:
                assert event.end.index not in self.ends
                self.ends[event.end.index] = event
        return self

    async def _next(self) -> tuple[int, Found]:
        """Waits until enough are open, or some time has passed."""
        for _ in range(200):
            if len(self._open) >= self._at_once:
                break
            await asyncio.sleep(0.001)
        wanted = self._open.pop()
        return wanted.index, self._answer(wanted)


async def test_each_of_several_answers_asks_by_itself(generator: HfGenerator) -> None:
    """Two wait at once, are answered in the other order, and say what they say alone."""

    def passage(index: int) -> Callable[[Wanted], Found]:
        return lambda wanted: FoundPassages((f"passage {index} {wanted.round} ",))

    sampling = {"max_tokens": 14, "temperature": 1.0}
    plan = AugmentPlan(spec(n=2, seed=3, **sampling), interval(5))
    both = await Several(lambda w: passage(w.index)(w), at_once=2).run(generator, plan)
    assert sorted(both.ends) == [0, 1]
    assert both.most_open == 2
    for index in (0, 1):
        alone = spec(seed=seed_of(3, index), **sampling)
        one = await Several(passage(index), at_once=1).run(
            generator, AugmentPlan(alone, interval(5))
        )
        assert both.texts[index] == one.texts[0]
        assert [w.recent for w in both.wanted[index]] == [w.recent for w in one.wanted[0]]
        assert [w.round for w in both.wanted[index]] == [1, 2]
        assert both.ends[index].rounds == 2
        assert both.ends[index].context_tokens == one.ends[0].context_tokens
        assert both.ends[index].end.completion_tokens == 14
    assert both.texts[0] != both.texts[1]


async def test_neighbours_of_several_answers(generator: HfGenerator) -> None:
    def near(wanted: Wanted) -> Found:
        return FoundNeighbours(np.array([40 + wanted.index], np.int32), np.ones(1, np.float32))

    plan = AugmentPlan(spec(max_tokens=4, n=3), NeighbourPlan(1.0, 1.0))
    told = await Several(near, at_once=1).run(generator, plan)
    assert told.texts == {i: generator.text_of([40 + i] * 4) for i in range(3)}


async def test_an_answer_that_nobody_waits_for_is_refused(generator: HfGenerator) -> None:
    class Wrong(Several):
        async def _next(self) -> tuple[int, Found]:
            return 1 + (await super()._next())[0], FoundPassages(())

    plan = AugmentPlan(spec(max_tokens=9), interval(2))
    with pytest.raises(InvalidInput, match="answer 1 waits for nothing") as caught:
        await Wrong(lambda wanted: FoundPassages(()), 1).run(generator, plan)
    assert caught.value.field == "index"


async def test_states_are_what_the_head_reads(generator: HfGenerator, long_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(long_llama, dtype=torch.float32).eval()
    texts = ["the quick brown fox", "naïve café and 漢字 in one line", "x", ""]
    found = await hidden_states(generator, texts, 1000, CallContext.start(60))
    for text, states in zip(texts, found, strict=True):
        ids = generator.document_ids(text)
        assert states.next_tokens.tolist() == ids[1:]
        if len(ids) > 1:
            with torch.no_grad():
                out = model(torch.tensor([ids]), output_hidden_states=True)
            expected = out.hidden_states[-1][0, :-1]
            np.testing.assert_allclose(states.hidden, expected, atol=1e-4)
    with pytest.raises(PayloadTooLarge, match="5 may come"):
        await hidden_states(generator, texts, 5, CallContext.start(60))
