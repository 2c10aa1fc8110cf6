"""Interval: while an answer is written, its own end asks for further passages."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import MutableMapping
from dataclasses import replace

from coordinator.batcher import Batcher
from coordinator.stages.prompt import titled_text
from coordinator.types import Hit, SearchOutcome, SearchSpec
from ragschema.errors import DeadlineExceeded, RagrigError
from ragschema.generation import IntervalConfig
from ragschema.types import CallContext, GenerateSpec
from ragschema.wire.augment_pb2 import (
    AugmentMessage,
    AugmentStart,
    IntervalRetrieval,
    Passages,
    RetrievalWanted,
)
from ragschema.wire.generating import generate_to_wire

log = logging.getLogger(__name__)


class IntervalAsking:
    """Answers to one prompt; each reads what it has not read yet.

    Args:
        search: as the question was searched; its filters hold for later rounds.
        hits: the prompt's passages by number; new ones are added with the next
            numbers, so that the answer may cite them.
    """

    def __init__(
        self,
        config: IntervalConfig,
        batcher: Batcher[SearchSpec, SearchOutcome],
        spec: GenerateSpec,
        search: SearchSpec,
        hits: MutableMapping[int, Hit],
        context: CallContext,
    ) -> None:
        self._config = config
        self._batcher = batcher
        self._spec = spec
        self._search = search
        self._hits = hits
        self._context = context
        self._given = set(hits)
        self._read: defaultdict[int, set[int]] = defaultdict(lambda: set(self._given))

    @property
    def answers(self) -> int:
        """Answers to the prompt."""
        return self._spec.sampling.n

    def start(self) -> AugmentStart:
        """When to ask."""
        config = self._config
        interval = IntervalRetrieval(
            every_tokens=config.every_tokens or 0,
            triggers=config.triggers,
            max_rounds=config.max_rounds,
            recent_tokens=config.recent_tokens,
        )
        return AugmentStart(request=generate_to_wire(self._spec), interval=interval)

    async def found(self, wanted: RetrievalWanted) -> AugmentMessage:
        """Passages that this answer does not have yet; none where the search failed.

        Raises:
            DeadlineExceeded: there is no time left for anything.
        """
        text = wanted.recent_text.strip() or self._spec.question
        spec = replace(self._search, text=text, vector=None, k=self._config.k)
        try:
            outcome = (await self._batcher.submit(spec, self._context)).value
        except DeadlineExceeded:
            raise
        except RagrigError as error:
            # The answer is worth more without them than an error in its middle.
            log.warning("trace %s: round %d: %s", self._context.trace_id, wanted.round, error)
            return AugmentMessage(passages=Passages())
        return AugmentMessage(passages=Passages(texts=self._numbered(outcome, wanted.index)))

    def _numbered(self, outcome: SearchOutcome, index: int) -> list[str]:
        """New passages get the next numbers, the same in all answers that read them."""
        numbers = {hit.chunk.row_id: number for number, hit in self._hits.items()}
        texts = []
        for hit in outcome.hits:
            number = numbers.get(hit.chunk.row_id, max(self._hits, default=0) + 1)
            self._hits.setdefault(number, hit)
            if number not in self._read[index]:
                self._read[index].add(number)
                texts.append(passage_text(number, hit))
        return texts


def passage_text(number: int, hit: Hit) -> str:
    """A passage as it stands in the middle of an answer, where only the model reads it."""
    return f"\n\n[{number}] {titled_text(hit)}\n\n"
