"""One sequence that asks for context while it is generated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from llm_node.augment.plan import (
    AugmentPlan,
    Found,
    FoundNeighbours,
    FoundPassages,
    IntervalPlan,
    NeighbourPlan,
    Wanted,
)
from llm_node.engine.request import Ended, EngineRequest, Paused, PausePolicy, TokenOut
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.errors import InvalidInput
from ragschema.types import CallContext, GenerateEnd, TokenPiece


@dataclass(frozen=True)
class AugmentEnd:
    """Last event.

    Attributes:
        context_tokens: of passages that were read.
        dropped: passages for which the model's context had no room.
    """

    end: GenerateEnd
    rounds: int
    context_tokens: int
    dropped: int


AugmentEvent = TokenPiece | Wanted | AugmentEnd
#: Waits for what answers the last ``Wanted``.
Answers = Callable[[], Awaitable[Found]]


class Session:
    """Drives one request of the engine; ``run`` may be called once."""

    def __init__(self, generator: HfGenerator, plan: AugmentPlan, context: CallContext) -> None:
        if plan.spec.sampling.n != 1:
            raise InvalidInput(
                f"{plan.spec.sampling.n} answers cannot ask in one stream",
                field="n",
                hint="send n requests",
            )
        self._generator = generator
        self._plan = plan
        self._context = context
        self._answer = generator.answer(plan.spec.sampling)
        self._output_ids: list[int] = []
        self._prompt_tokens = self._context_tokens = self._rounds = self._dropped = 0

    async def run(self, answers: Answers) -> AsyncGenerator[AugmentEvent, None]:
        """Pieces and wanted events, then the end; closing it frees the blocks.

        Raises:
            InvalidInput: a trigger is no single token, or an answer is of the wrong kind.
            PayloadTooLarge: the prompt does not fit.
        """
        started_s = time.monotonic()
        prompt = await asyncio.to_thread(self._generator.encode, self._plan.spec)
        self._prompt_tokens = len(prompt)
        request = self._request(prompt)
        answer, first_us = self._answer, 0
        async with aclosing(self._generator.worker.stream(request)) as events:
            async for event in events:
                if isinstance(event, TokenOut):
                    first_us = first_us or int((time.monotonic() - started_s) * 1e6)
                    self._output_ids.append(event.token_id)
                    answer.add(event.token_id, self._generator.logprob_of(event))
                elif isinstance(event, Ended):
                    answer.end(finish_reason(event, self._context))
                if piece := answer.take():
                    yield piece
                if answer.finish is not None:
                    break
                if isinstance(event, Paused):
                    if self._asks():
                        yield self._wanted(event)
                        await self._go_on(request.request_id, await answers())
                    else:
                        await self._generator.worker.resume(request.request_id, ())
        total_us = int((time.monotonic() - started_s) * 1e6)
        end = GenerateEnd(
            answer.finish or "", self._prompt_tokens, answer.tokens, 0, first_us, total_us
        )
        yield AugmentEnd(end, self._rounds, self._context_tokens, self._dropped)

    def _request(self, prompt: list[int]) -> EngineRequest:
        kind = self._plan.kind
        if isinstance(kind, NeighbourPlan):
            pause = PausePolicy(every_token_hidden=True)
        else:
            triggers = frozenset(self._generator.single_token(text) for text in kind.triggers)
            pause = PausePolicy(every_tokens=kind.every_tokens, trigger_ids=triggers)
        request = self._generator.request(prompt, self._plan.spec, self._context)
        hidden = isinstance(kind, IntervalPlan) and kind.want_hidden
        return replace(request, pause=pause, capture_hidden=hidden)

    def _asks(self) -> bool:
        kind = self._plan.kind
        return isinstance(kind, NeighbourPlan) or self._rounds < kind.max_rounds

    def _wanted(self, paused: Paused) -> Wanted:
        self._rounds += 1
        kind = self._plan.kind
        recent = ""
        if isinstance(kind, IntervalPlan) and kind.recent_tokens:
            recent = self._generator.text_of(self._output_ids[-kind.recent_tokens :])
        return Wanted(self._rounds, paused.reason.value, recent, paused.hidden)

    async def _go_on(self, request_id: str, found: Found) -> None:
        kind, worker = self._plan.kind, self._generator.worker
        if isinstance(kind, NeighbourPlan) and isinstance(found, FoundNeighbours):
            await worker.resume_mixed(
                request_id, found.tokens, found.distances, kind.lam, kind.temperature
            )
        elif isinstance(kind, IntervalPlan) and isinstance(found, FoundPassages):
            ids = await asyncio.to_thread(self._fitting, found.texts)
            self._context_tokens += len(ids)
            await worker.resume(request_id, ids)
        else:
            raise InvalidInput(
                f"{type(found).__name__} do not answer what was asked", field="message"
            )

    def _fitting(self, texts: tuple[str, ...]) -> list[int]:
        """Tokens of the passages, best first, that leave room for the whole answer."""
        sampling = self._plan.spec.sampling
        used = self._prompt_tokens + self._context_tokens + sampling.max_tokens
        room = self._generator.engine.max_tokens - used
        ids: list[int] = []
        for number, text in enumerate(texts):
            new = self._generator.ids_of(text)
            if len(ids) + len(new) > room:
                self._dropped += len(texts) - number
                break
            ids += new
        return ids
