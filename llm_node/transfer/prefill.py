"""Role prefill: reads a prompt, draws the first token, takes the KV out of the engine."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_node.engine.kv import KvSnapshot
from llm_node.engine.request import Ended, Paused, PausePolicy, TokenOut
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.types import CallContext, GenerateSpec, TokenLogprob

#: Behind the first token, with its blocks kept until they were copied.
_FIRST_TOKEN = PausePolicy(every_tokens=1, hold_kv=True)
#: In front of it: several answers have first tokens of their own.
_NO_TOKEN = PausePolicy(every_token_hidden=True, hold_kv=True)


@dataclass(frozen=True)
class Prefilled:
    """A prompt that was read.

    Attributes:
        token_ids: what was drawn; one token, and none when there are several answers.
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
    """Computes a prompt's KV and its first token, or the KV alone for several answers.

    Raises:
        DeadlineExceeded, InternalError: see ``HfGenerator.generate``.
    """
    pause = _FIRST_TOKEN if spec.sampling.n == 1 else _NO_TOKEN
    sampling = replace(spec.sampling, n=1)
    request = generator.request(prompt, replace(spec, sampling=sampling), context)
    request = replace(request, pause=pause)
    answer = generator.answer(sampling)
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
