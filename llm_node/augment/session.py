"""Sequences that ask for context while they are generated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from llm_node.augment.plan import (
    AugmentPlan,
    Found,
    FoundNeighbours,
    FoundPassages,
    IntervalPlan,
    NeighbourPlan,
    Wanted,
)
from llm_node.engine.request import (
    Ended,
    EngineRequest,
    Paused,
    PausePolicy,
    StepEvent,
    TokenOut,
)
from llm_node.generate.answer import Answer
from llm_node.generate.hf import HfGenerator, finish_reason
from ragschema.errors import InvalidInput
from ragschema.types import CallContext, GenerateEnd, TokenPiece


@dataclass(frozen=True)
class AugmentEnd:
    """Last event of an answer.

    Attributes:
        context_tokens: of passages that were read.
        dropped: passages for which the model's context had no room.
    """

    end: GenerateEnd
    rounds: int
    context_tokens: int
    dropped: int


AugmentEvent = TokenPiece | Wanted | AugmentEnd
#: Waits for the next answer to a ``Wanted``: its index, and what was found.
Answers = Callable[[], Awaitable[tuple[int, Found]]]


@dataclass
class _Growing:
    """One of the answers, and what was read for it."""

    answer: Answer
    output_ids: list[int] = field(default_factory=list)
    context_tokens: int = 0
    rounds: int = 0
    dropped: int = 0


class Session:
    """Drives one request of the engine; ``run`` may be called once.

    Each of ``sampling.n`` answers asks and waits by itself, the others go on meanwhile.
    """

    def __init__(self, generator: HfGenerator, plan: AugmentPlan, context: CallContext) -> None:
        sampling = plan.spec.sampling
        self._generator = generator
        self._plan = plan
        self._context = context
        self._growing = [_Growing(generator.answer(sampling, i)) for i in range(sampling.n)]
        self._prompt_tokens = 0
        #: Answers that wait, one permit for each.
        self._waiting: set[int] = set()
        self._asked = asyncio.Semaphore(0)
        self._failure: Exception | None = None

    async def run(self, answers: Answers) -> AsyncGenerator[AugmentEvent, None]:
        """Pieces and wanted events, and an end for each answer; closing it frees the blocks.

        Raises:
            InvalidInput: a trigger is no single token, or an answer is of the wrong kind,
                or for what did not ask.
            PayloadTooLarge: the prompt does not fit.
        """
        started_s = time.monotonic()
        prompt = await asyncio.to_thread(self._generator.encode, self._plan.spec)
        self._prompt_tokens = len(prompt)
        request = self._request(prompt)
        reader = asyncio.create_task(self._read(request.request_id, answers))
        first_us, left = 0, len(self._growing)
        try:
            async with aclosing(self._generator.worker.stream(request)) as events:
                async for event in events:
                    if self._failure is not None:
                        raise self._failure
                    grown = self._growing[event.index]
                    if grown.answer.finish is not None:
                        continue  # what the engine did before it heard of the stop string
                    if isinstance(event, TokenOut):
                        first_us = first_us or _us_since(started_s)
                    if piece := self._take(grown, event):
                        yield piece
                    if grown.answer.finish is not None:
                        yield self._end(grown, event.index, first_us, _us_since(started_s))
                        left -= 1
                        if not left:
                            break
                        await self._generator.worker.cancel(request.request_id, event.index)
                    elif isinstance(event, Paused):
                        if wanted := self._wanted(grown, event):
                            yield wanted
                        else:
                            await self._generator.worker.resume(request.request_id, (), event.index)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _take(self, grown: _Growing, event: StepEvent) -> TokenPiece | None:
        """What the engine's event adds to an answer, as far as it can be told."""
        if isinstance(event, TokenOut):
            grown.output_ids.append(event.token_id)
            grown.answer.add(event.token_id, self._generator.logprob_of(event))
        elif isinstance(event, Ended):
            grown.answer.end(finish_reason(event, self._context))
        return grown.answer.take()

    def _end(self, grown: _Growing, index: int, first_us: int, total_us: int) -> AugmentEnd:
        answer = grown.answer
        end = GenerateEnd(
            answer.finish or "", self._prompt_tokens, answer.tokens, 0, first_us, total_us, index
        )
        return AugmentEnd(end, grown.rounds, grown.context_tokens, grown.dropped)

    async def _read(self, request_id: str, answers: Answers) -> None:
        """Resumes whoever is answered, as long as somebody waits."""
        try:
            while True:
                await self._asked.acquire()
                index, found = await answers()
                if index not in self._waiting:
                    raise InvalidInput(
                        f"answer {index} waits for nothing",
                        field="index",
                        hint="answer what a wanted event asked, by its index",
                    )
                self._waiting.remove(index)
                await self._go_on(request_id, index, found)
        except Exception as error:  # noqa: BLE001 - told by run, which the engine's end wakes
            self._failure = error
            await self._generator.worker.cancel(request_id)

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

    def _wanted(self, grown: _Growing, paused: Paused) -> Wanted | None:
        """What a paused answer asks; None: it has asked often enough."""
        kind = self._plan.kind
        if isinstance(kind, IntervalPlan) and grown.rounds >= kind.max_rounds:
            return None
        grown.rounds += 1
        recent = ""
        if isinstance(kind, IntervalPlan) and kind.recent_tokens:
            recent = self._generator.text_of(grown.output_ids[-kind.recent_tokens :])
        self._waiting.add(paused.index)
        self._asked.release()
        return Wanted(grown.rounds, paused.reason.value, recent, paused.hidden, paused.index)

    async def _go_on(self, request_id: str, index: int, found: Found) -> None:
        kind, worker = self._plan.kind, self._generator.worker
        if isinstance(kind, NeighbourPlan) and isinstance(found, FoundNeighbours):
            await worker.resume_mixed(
                request_id, found.tokens, found.distances, kind.lam, kind.temperature, index
            )
        elif isinstance(kind, IntervalPlan) and isinstance(found, FoundPassages):
            grown = self._growing[index]
            ids = await asyncio.to_thread(self._fitting, grown, found.texts)
            grown.context_tokens += len(ids)
            await worker.resume(request_id, ids, index)
        else:
            raise InvalidInput(
                f"{type(found).__name__} do not answer what was asked", field="message"
            )

    def _fitting(self, grown: _Growing, texts: tuple[str, ...]) -> list[int]:
        """Tokens of the passages, best first, that leave room for the whole answer."""
        sampling = self._plan.spec.sampling
        used = self._prompt_tokens + grown.context_tokens + sampling.max_tokens
        room = self._generator.engine.max_tokens - used
        ids: list[int] = []
        for number, text in enumerate(texts):
            new = self._generator.ids_of(text)
            if len(ids) + len(new) > room:
                grown.dropped += len(texts) - number
                break
            ids += new
        return ids


def _us_since(started_s: float) -> int:
    return int((time.monotonic() - started_s) * 1e6)
