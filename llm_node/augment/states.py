"""Rows of a kNN-LM datastore: the state in front of every token, and that token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from llm_node.engine.request import Paused, PausePolicy
from llm_node.generate.hf import HfGenerator
from ragschema.errors import InternalError, PayloadTooLarge
from ragschema.types import F32, I32, CallContext, ChatMessage, GenerateSpec, Sampling

#: Texts of one call that the engine reads at once, so that others find room in it.
_AT_ONCE: Final = 64


@dataclass(frozen=True)
class States:
    """Of one text.

    Attributes:
        hidden: float32 [n, hidden], as the LM head reads it; [0, 0] of a text
            without a token behind another.
        next_tokens: int32 [n], the token behind each.
    """

    hidden: F32
    next_tokens: I32


async def hidden_states(
    generator: HfGenerator, texts: Sequence[str], max_tokens: int, context: CallContext
) -> list[States]:
    """States of texts, computed together, by the very path that generation takes.

    Each text is read token by token in front of which the sequence pauses, so that
    a query of the generation meets keys that were made in the same way. When one
    fails, or the caller leaves, none of them stays in the engine.

    Raises:
        PayloadTooLarge: all texts together have more tokens than ``max_tokens``.
    """
    ids = await asyncio.to_thread(lambda: [generator.document_ids(text) for text in texts])
    total = sum(map(len, ids))
    if total > max_tokens:
        raise PayloadTooLarge(
            f"the texts have {total} tokens, {max_tokens} may come in one call",
            field="texts",
            hint="send fewer or shorter texts",
        )
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(one: list[int]) -> States:
        async with turns:
            return await _of_one(generator, one, context)

    tasks = [asyncio.create_task(in_turn(one)) for one in ids]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _of_one(generator: HfGenerator, ids: list[int], context: CallContext) -> States:
    if len(ids) < 2:
        return States(np.zeros((0, 0), np.float32), np.zeros(0, np.int32))
    spec = GenerateSpec((ChatMessage("user", ""),), "", (), Sampling(max_tokens=1))
    request = generator.request(ids[:1], spec, context)
    request = replace(request, pause=PausePolicy(every_token_hidden=True))
    rows: list[F32] = []
    async with aclosing(generator.worker.stream(request)) as events:
        async for event in events:
            if not isinstance(event, Paused) or event.hidden is None:
                raise InternalError(f"a text could not be read: {event}")
            rows.append(event.hidden)
            if len(rows) == len(ids) - 1:
                break
            await generator.worker.resume(request.request_id, [ids[len(rows)]])
    return States(np.stack(rows), np.array(ids[1:], dtype=np.int32))
