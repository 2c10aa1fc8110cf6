"""How texts for hidden states share the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from llm_node.augment.states import hidden_states
from llm_node.generate import hf
from llm_node.generate.hf import HfGenerator
from llm_node.roles import GeneratorDeps
from ragschema.errors import PayloadTooLarge
from ragschema.types import CallContext


@pytest.fixture
async def generator(tiny_llama: Path) -> AsyncIterator[HfGenerator]:
    """With a context of 128 tokens."""
    made = hf.load(str(tiny_llama), GeneratorDeps())
    await made.start()
    yield made
    await made.close()
    made.engine.check_integrity()


async def _live(generator: HfGenerator) -> int:
    stats = await generator.worker.stats()
    return stats.running + stats.waiting + stats.paused


async def test_many_texts_take_turns_and_keep_their_order(generator: HfGenerator) -> None:
    texts = [f"text {number}" for number in range(300)]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await _live(generator))

    watching = asyncio.create_task(watch())
    found = await hidden_states(generator, texts, 10_000, CallContext.start(120))
    watching.cancel()
    assert 1 < most <= 64
    for text, states in zip(texts, found, strict=True):
        assert states.next_tokens.tolist() == generator.document_ids(text)[1:]
    (alone,) = await hidden_states(generator, texts[-1:], 100, CallContext.start(60))
    np.testing.assert_allclose(found[-1].hidden, alone.hidden, atol=1e-5)


async def test_a_text_that_fails_takes_the_others_along(generator: HfGenerator) -> None:
    texts = ["ab" * 40] * 30 + ["too long " * 40] + ["ab" * 40] * 200
    with pytest.raises(PayloadTooLarge):
        await hidden_states(generator, texts, 100_000, CallContext.start(120))
    await _nothing_is_left(generator)


async def test_a_caller_that_leaves_takes_all_along(generator: HfGenerator) -> None:
    asking = asyncio.create_task(
        hidden_states(generator, ["ab" * 50] * 200, 100_000, CallContext.start(120))
    )
    while not await _live(generator):
        assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await _nothing_is_left(generator)


async def _nothing_is_left(generator: HfGenerator) -> None:
    """The engine is told of closed streams before it is asked."""
    assert await _live(generator) == 0
    assert (await generator.worker.stats()).blocks_used == 0
