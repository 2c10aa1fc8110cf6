"""Role decode: goes on from another node's KV."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, TokenOut
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.types import CallContext, GenerateEnd, GenerateSpec, TokenLogprob


@dataclass(frozen=True)
class Decoded:
    """Newly drawn tokens, and text of the answer, known tokens included.

    Attributes:
        logprobs: of the new tokens that are text, when asked for.
    """

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


async def decode(
    generator: HfGenerator,
    snapshot: KvSnapshot,
    spec: GenerateSpec,
    output_ids: Sequence[int],
    context: CallContext,
) -> AsyncGenerator[Decoded | GenerateEnd, None]:
    """The answer from its beginning, though known tokens are not computed again.

    Their text comes too, so that text behind the last whole character is the
    same as if one node had written all of it.

    Args:
        output_ids: drawn so far.

    Raises:
        IncompatibleRequest: the snapshot is another model's.
    """
    started_s = time.monotonic()
    prompt = snapshot.token_ids[: snapshot.computed]
    request = generator.request(prompt, spec, context)
    answer = generator.answer(spec.sampling)
    for token_id in output_ids:
        answer.add(token_id)
    first_us = 0
    events = generator.worker.stream_imported(request, snapshot, output_ids)
    async with aclosing(events):
        if piece := answer.take():
            yield Decoded((), piece.text)
        async for event in events:
            ids: tuple[int, ...] = ()
            logprobs: tuple[TokenLogprob, ...] = ()
            if isinstance(event, TokenOut):
                first_us = first_us or _us_since(started_s)
                ids = (event.token_id,)
                logprob = generator.logprob_of(event)
                if answer.add(event.token_id) and logprob is not None:
                    logprobs = (logprob,)
            elif isinstance(event, Ended):
                answer.end(finish_reason(event, context))
            piece = answer.take()
            if ids or piece:
                yield Decoded(ids, piece.text if piece else "", logprobs)
            if answer.finish is not None:
                break
    yield GenerateEnd(
        answer.finish or "", len(prompt), answer.tokens, 0, first_us, _us_since(started_s)
    )


def _us_since(started_s: float) -> int:
    return int((time.monotonic() - started_s) * 1e6)
