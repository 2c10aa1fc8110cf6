"""Role prefill: reads a prompt, draws the first token, takes the KV out of the engine."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, Paused, PausePolicy, TokenOut
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.errors import InvalidInput
from ragschema.types import CallContext, GenerateSpec, TokenLogprob

#: Behind the first token, with its blocks kept until they were copied.
_FIRST_TOKEN = PausePolicy(every_tokens=1, hold_kv=True)


@dataclass(frozen=True)
class Prefilled:
    """A prompt that was read.

    Attributes:
        token_ids: what was drawn; one token.
        text: of it, as far as it can be told already.
        logprobs: of the tokens that are text, when asked for.
        finish: why the answer ended with it; None: it goes on from the snapshot.
    """

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...]
    finish: str | None
    snapshot: KvSnapshot | None


async def prefill(
    generator: HfGenerator, prompt: list[int], spec: GenerateSpec, context: CallContext
) -> Prefilled:
    """Computes a prompt's KV and its first token.

    Raises:
        InvalidInput: several answers are asked for.
        DeadlineExceeded, InternalError: see ``HfGenerator.generate``.
    """
    if spec.sampling.n != 1:
        raise InvalidInput(
            f"{spec.sampling.n} answers cannot go on elsewhere", field="n", hint="send n requests"
        )
    request = replace(generator.request(prompt, spec, context), pause=_FIRST_TOKEN)
    answer = generator.answer(spec.sampling)
    ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    snapshot: KvSnapshot | None = None
    async with aclosing(generator.worker.stream(request)) as events:
        async for event in events:
            if isinstance(event, TokenOut):
                ids.append(event.token_id)
                logprob = generator.logprob_of(event)
                if answer.add(event.token_id) and logprob is not None:
                    logprobs.append(logprob)
            elif isinstance(event, Paused):
                if answer.finish is None:
                    snapshot = await generator.worker.export_kv(request.request_id)
                break
            elif isinstance(event, Ended):
                answer.end(finish_reason(event, context))
    piece = answer.take()
    text = piece.text if piece else ""
    return Prefilled(tuple(ids), text, tuple(logprobs), answer.finish, snapshot)
