"""Role decode: goes on from another node's KV."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, EngineRequest, StepEvent, TokenOut
from llm_node.generate.answer import Answer
from llm_node.generate.hf import HfGenerator, finish_reason
from llm_node.transfer.known import end_full, read_again
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
    pull: Callable[[], Awaitable[KvSnapshot]],
    spec: GenerateSpec,
    known: Mapping[int, Sequence[int]],
    context: CallContext,
) -> AsyncGenerator[Decoded | GenerateEnd, None]:
    """Answers from their beginning, though known tokens are not computed again.

    Their text comes too, so that text behind the last whole character is the
    same as if one node had written all of it. An end for each of the answers follows.

    Args:
        pull: gets the prompt's KV; not called when all answers end with what is known.
        known: by index, the tokens drawn so far of each answer whose end was not told.

    Raises:
        IncompatibleRequest: the snapshot is another model's.
    """
    started_s = time.monotonic()
    request = generator.request((), spec, context)
    answers = await read_again(generator, spec, request.eos, known)
    if _may_have_ended(answers, spec):
        prompt_tokens = len(await asyncio.to_thread(generator.encode, spec))
        end_full(answers, prompt_tokens, generator.engine.max_tokens)
        for event in _ended(answers, prompt_tokens, started_s):
            yield event
    if not answers:
        return
    snapshot = await pull()
    request = replace(request, prompt_ids=snapshot.token_ids[: snapshot.computed])
    left = {index: known[index] for index in answers}
    async with aclosing(generator.worker.stream_imported(request, snapshot, left)) as events:
        drawn = _going_on(generator, request, answers, events, context, started_s)
        async with aclosing(drawn) as told:
            async for one in told:
                yield one


def _may_have_ended(answers: Mapping[int, Answer], spec: GenerateSpec) -> bool:
    """Whether the prompt's length is worth reading: not behind a prefill node's tokens."""
    drawn = 1 if spec.sampling.n == 1 else 0
    return any(one.finish is not None or one.tokens > drawn for one in answers.values())


def _ended(
    answers: dict[int, Answer], prompt_tokens: int, started_s: float
) -> Iterator[Decoded | GenerateEnd]:
    """What is to be told of answers that have a finish; they are taken out."""
    for index, answer in list(answers.items()):
        if answer.finish is None:
            continue
        del answers[index]
        if piece := answer.take():
            yield Decoded((), piece.text, index=index)
        total_us = _us_since(started_s)
        yield GenerateEnd(answer.finish, prompt_tokens, answer.tokens, 0, 0, total_us, index)


async def _going_on(
    generator: HfGenerator,
    request: EngineRequest,
    answers: dict[int, Answer],
    events: AsyncGenerator[StepEvent, None],
    context: CallContext,
    started_s: float,
) -> AsyncGenerator[Decoded | GenerateEnd, None]:
    """Known text, then what the engine draws, until all answers have ended."""
    for index, answer in answers.items():
        if piece := answer.take():
            yield Decoded((), piece.text, index=index)
    prompt_tokens, first_us = len(request.prompt_ids), 0
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
            answer.finish, prompt_tokens, answer.tokens, 0, first_us, total_us, event.index
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
