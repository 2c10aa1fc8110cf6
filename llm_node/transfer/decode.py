"""Role decode: goes on from another node's KV."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, StepEvent, TokenOut
from llm_node.generate.answer import Answer
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.types import CallContext, GenerateEnd, GenerateSpec, TokenLogprob


@dataclass(frozen=True)
class Decoded:
    """Newly drawn tokens, and text of the answer, known tokens included.

    Attributes:
        logprobs: of the new tokens that are text, when asked for.
        index: which of the answers.
    """

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    index: int = 0


async def decode(
    generator: HfGenerator,
    snapshot: KvSnapshot,
    spec: GenerateSpec,
    known: Mapping[int, Sequence[int]],
    context: CallContext,
) -> AsyncGenerator[Decoded | GenerateEnd, None]:
    """Answers from their beginning, though known tokens are not computed again.

    Their text comes too, so that text behind the last whole character is the
    same as if one node had written all of it. An end for each of the answers follows.

    Args:
        known: by index, the tokens drawn so far of each answer that has not ended.

    Raises:
        IncompatibleRequest: the snapshot is another model's.
    """
    started_s = time.monotonic()
    prompt = snapshot.token_ids[: snapshot.computed]
    request = generator.request(prompt, spec, context)
    answers = {index: generator.answer(spec.sampling, index) for index in known}
    for index, answer in answers.items():
        for token_id in known[index]:
            answer.add(token_id)
    first_us = 0
    async with aclosing(generator.worker.stream_imported(request, snapshot, known)) as events:
        for index, answer in answers.items():
            if piece := answer.take():
                yield Decoded((), piece.text, index=index)
        async for event in events:
            if event.index not in answers:
                continue  # what the engine did before it heard of the stop string
            answer = answers[event.index]
            if isinstance(event, TokenOut):
                first_us = first_us or _us_since(started_s)
            if decoded := _taken(generator, answer, event, context):
                yield decoded
            if answer.finish is None:
                continue
            total_us = _us_since(started_s)
            yield GenerateEnd(
                answer.finish, len(prompt), answer.tokens, 0, first_us, total_us, event.index
            )
            del answers[event.index]
            if not answers:
                break
            await generator.worker.cancel(request.request_id, event.index)


def _taken(
    generator: HfGenerator, answer: Answer, event: StepEvent, context: CallContext
) -> Decoded | None:
    """What is told of an engine's event; None: nothing."""
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    if isinstance(event, TokenOut):
        ids = (event.token_id,)
        logprob = generator.logprob_of(event)
        if answer.add(event.token_id) and logprob is not None:
            logprobs = (logprob,)
    elif isinstance(event, Ended):
        answer.end(finish_reason(event, context))
    piece = answer.take()
    if not ids and piece is None:
        return None
    return Decoded(ids, piece.text if piece else "", logprobs, event.index)


def _us_since(started_s: float) -> int:
    return int((time.monotonic() - started_s) * 1e6)
