"""Answer: turns a generator's stream into the events of a query."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from coordinator.stages.citations import CitationParser
from coordinator.stages.generate import GenerateStart
from coordinator.stages.prompt import Prompt
from coordinator.types import (
    CitationEvent,
    DoneEvent,
    QueryEvent,
    SearchOutcome,
    TokenEvent,
)
from ragschema.types import GenerateEnd, GenerateEvent


class Answer:
    """Collects what the last event of a query tells as a whole.

    Args:
        started_s: when the request arrived, on ``time.perf_counter()``'s clock.
        prompt_ms: what building the prompt took.
    """

    def __init__(
        self, outcome: SearchOutcome, prompt: Prompt, started_s: float, prompt_ms: float
    ) -> None:
        self._outcome = outcome
        self._started_s = started_s
        self._citations = CitationParser(prompt.hits)
        self._timings = replace(outcome.timings, prompt_ms=prompt_ms)
        self._model = ""
        self._pieces: list[str] = []
        self._end: GenerateEnd | None = None

    def take(self, event: GenerateStart | GenerateEvent) -> Iterator[QueryEvent]:
        """What the client is told of one event of the generator."""
        if isinstance(event, GenerateStart):
            self._model = event.model
            waited_ms = self._timings.queue_ms + event.queued_s * 1e3
            self._timings = replace(self._timings, queue_ms=waited_ms)
        elif isinstance(event, GenerateEnd):
            self._end = event
        elif event.text:
            if not self._pieces:
                self._timings = replace(self._timings, first_token_ms=self._elapsed_ms())
            self._pieces.append(event.text)
            yield TokenEvent(event.text)
            for citation in self._citations.feed(event.text):
                yield CitationEvent(citation)

    def done(self) -> DoneEvent:
        """The whole answer, once the generator has ended."""
        assert self._end is not None, "the generate stage ends every stream or raises"
        return DoneEvent(
            answer="".join(self._pieces),
            finish_reason=self._end.finish_reason,
            model=self._model,
            citations=self._citations.all(),
            coverage=self._outcome.coverage,
            retrieval=self._outcome.retrieval,
            timings=replace(self._timings, total_ms=self._elapsed_ms()),
            usage=replace(
                self._outcome.usage,
                prompt_tokens=self._end.prompt_tokens,
                completion_tokens=self._end.completion_tokens,
            ),
        )

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started_s) * 1e3
