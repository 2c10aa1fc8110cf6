"""Answer: turns a generator's stream into the events of a query."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from coordinator.stages.citations import CitationParser
from coordinator.stages.generate import GenerateStart
from coordinator.stages.prompt import Prompt
from coordinator.types import (
    Choice,
    CitationEvent,
    DoneEvent,
    Hit,
    QueryEvent,
    SearchOutcome,
    TokenEvent,
)
from ragschema.errors import UpstreamError
from ragschema.types import GenerateEnd, GenerateEvent, TokenLogprob, TokenPiece


class _Growing:
    """One of a question's answers while it is written."""

    def __init__(self, hits: Mapping[int, Hit]) -> None:
        self.citations = CitationParser(hits)
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.end: GenerateEnd | None = None

    def choice(self) -> Choice:
        """The whole of it, once it has ended."""
        assert self.end is not None, "the generate stage ends every answer or raises"
        return Choice(
            "".join(self.pieces),
            self.end.finish_reason,
            self.citations.all(),
            tuple(self.logprobs),
        )


class Answer:
    """Collects what the last event of a query tells as a whole.

    Args:
        started_s: when the request arrived, on ``time.perf_counter()``'s clock.
        prompt_ms: what building the prompt took.
        n: answers that were asked for.
    """

    def __init__(
        self,
        outcome: SearchOutcome,
        prompt: Prompt,
        started_s: float,
        prompt_ms: float,
        n: int = 1,
    ) -> None:
        self._outcome = outcome
        self._started_s = started_s
        self._answers = [_Growing(prompt.hits) for _ in range(n)]
        self._timings = replace(outcome.timings, prompt_ms=prompt_ms)
        self._model = ""

    def take(self, event: GenerateStart | GenerateEvent) -> Iterator[QueryEvent]:
        """What the client is told of one event of the generator."""
        if isinstance(event, GenerateStart):
            self._model = event.model
            waited_ms = self._timings.queue_ms + event.queued_s * 1e3
            self._timings = replace(self._timings, queue_ms=waited_ms)
        elif isinstance(event, GenerateEnd):
            self._of(event.index).end = event
        elif event.text:
            if self._timings.first_token_ms is None:
                self._timings = replace(self._timings, first_token_ms=self._elapsed_ms())
            yield from self._told(event)

    def _told(self, piece: TokenPiece) -> Iterator[QueryEvent]:
        answer = self._of(piece.index)
        answer.pieces.append(piece.text)
        answer.logprobs += piece.logprobs
        yield TokenEvent(piece.text, piece.index, piece.logprobs)
        for citation in answer.citations.feed(piece.text):
            yield CitationEvent(citation, piece.index)

    def _of(self, index: int) -> _Growing:
        if index >= len(self._answers):
            raise UpstreamError(f"an LLM node wrote answer {index} of {len(self._answers)}")
        return self._answers[index]

    def done(self) -> DoneEvent:
        """The whole answer, once the generator has ended."""
        first, *others = [answer.choice() for answer in self._answers]
        ends = [answer.end for answer in self._answers if answer.end is not None]
        return DoneEvent(
            answer=first.answer,
            finish_reason=first.finish_reason,
            model=self._model,
            citations=first.citations,
            coverage=self._outcome.coverage,
            retrieval=self._outcome.retrieval,
            timings=replace(self._timings, total_ms=self._elapsed_ms()),
            usage=replace(
                self._outcome.usage,
                prompt_tokens=ends[0].prompt_tokens,
                completion_tokens=sum(end.completion_tokens for end in ends),
            ),
            logprobs=first.logprobs,
            others=tuple(others),
        )

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started_s) * 1e3
