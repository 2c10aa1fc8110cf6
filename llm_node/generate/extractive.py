"""The generator that needs no weights: it quotes the sentences that answer.

It never invents a word: apart from its first line, everything it says stands in
a passage, followed by the number of that passage.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from llm_node.generate.scoring import Candidate, score_candidates
from llm_node.generate.segments import SegmentKind
from llm_node.generate.stops import StopMatcher
from llm_node.generate.support import require_supported
from llm_node.roles import GeneratorDeps, Similarity, TokenOffsets
from llm_node.tokens import word_offsets
from ragschema.errors import InvalidInput
from ragschema.types import (
    I32,
    CallContext,
    GenerateEnd,
    GenerateEvent,
    GenerateSpec,
    ModelInfo,
    Role,
    TokenPiece,
)

HEADER = "Extractive answer (sentences quoted from the sources):"
NOTHING_FOUND = "Extractive answer: nothing was found in the sources for this question."

_VERSION = "extractive-1"
_PIECE = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class ExtractiveConfig:
    """How much is quoted.

    Attributes:
        max_sentences: most sentences of one answer.
        keep_ratio: a further sentence needs this share of the best score.
        max_overlap: share of terms beyond which a sentence repeats another.
        rescored: best sentences by words that are compared by meaning too.
        max_rescored_chars: of each of them, so that the forward pass stays short.
    """

    max_sentences: int = 4
    keep_ratio: float = 0.6
    max_overlap: float = 0.6
    rescored: int = 8
    max_rescored_chars: int = 240


def load(rest: str, deps: GeneratorDeps) -> ExtractiveGenerator:
    """Raises InvalidInput when something follows the word ``extractive``."""
    if rest:
        raise InvalidInput(
            f"'extractive:{rest}' has something behind the name",
            field="generator",
            hint="write extractive alone",
        )
    return ExtractiveGenerator(deps.similarity, deps.token_offsets or word_offsets)


class ExtractiveGenerator:
    """Picks, orders and cites sentences; deterministic for the same request.

    Args:
        similarity: compares by meaning as well, None for words alone.
        token_offsets: how tokens are counted.
    """

    def __init__(
        self,
        similarity: Similarity | None = None,
        token_offsets: TokenOffsets = word_offsets,
        config: ExtractiveConfig | None = None,
    ) -> None:
        self._similarity = similarity
        self._offsets = token_offsets
        self._config = config or ExtractiveConfig()
        self._info = ModelInfo(Role.GENERATE, "extractive", _VERSION, None, None)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        return self._offsets(texts)

    async def start(self) -> None:
        """Ready at once."""

    async def close(self) -> None:
        """Holds nothing."""

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Streams the answer word by word; see Generator.

        Raises:
            IncompatibleRequest: an option is set that means nothing here.
        """
        require_supported(spec.sampling, "extractive")
        started_s = time.monotonic()
        question = spec.question or _last_user_turn(spec)
        answer = await self._answer(question, spec)
        context.remaining_s()
        prompt_texts = [question, *(passage.text for passage in spec.passages)]
        counted = await asyncio.to_thread(self._count, prompt_texts)
        stops = StopMatcher(spec.sampling.stop)
        budget = spec.sampling.max_tokens
        first_us = used = 0
        finish = "stop"
        for text, tokens in await asyncio.to_thread(self._pieces, answer):
            if used + tokens > budget:
                finish = "length"
                break
            used += tokens
            ready = stops.feed(text)
            first_us = first_us or int((time.monotonic() - started_s) * 1e6)
            if ready:
                yield TokenPiece(ready, tokens)
            await asyncio.sleep(0)
            if stops.stopped:
                break
        if not stops.stopped and (rest := stops.flush()):
            yield TokenPiece(rest, 0)
        total_us = int((time.monotonic() - started_s) * 1e6)
        yield GenerateEnd(finish, sum(counted), used, 0, first_us, total_us)

    async def _answer(self, question: str, spec: GenerateSpec) -> str:
        candidates = await asyncio.to_thread(score_candidates, question, spec.passages)
        if not candidates:
            return NOTHING_FOUND
        if self._similarity is not None and question.strip():
            candidates = await self._by_meaning(question, candidates, self._similarity)
        budget = spec.sampling.max_tokens
        return await asyncio.to_thread(self._compose, candidates, budget)

    async def _by_meaning(
        self, question: str, candidates: list[Candidate], similarity: Similarity
    ) -> list[Candidate]:
        """Mixes the cosine into the scores of the best; drops the others."""
        best = sorted(candidates, key=_by_score)[: self._config.rescored]
        texts = [c.segment.text[: self._config.max_rescored_chars] for c in best]
        cosines = await similarity(question, texts)
        # Rounded: other texts in the same pass must not change the order.
        return [
            replace(c, score=0.5 * c.score + 0.5 * c.weight * max(0.0, round(float(cosine), 3)))
            for c, cosine in zip(best, cosines, strict=True)
        ]

    def _compose(self, candidates: Sequence[Candidate], budget: int) -> str:
        ranked = sorted(candidates, key=_by_score)
        costs = self._count([_quote(c) for c in ranked])
        left = budget - self._count([HEADER])[0]
        chosen: list[Candidate] = []
        for candidate, cost in zip(ranked, costs, strict=True):
            if len(chosen) == self._config.max_sentences:
                break
            if chosen and candidate.score < self._config.keep_ratio * chosen[0].score:
                break
            if cost > left or any(self._repeats(candidate, other) for other in chosen):
                continue
            chosen.append(candidate)
            left -= cost
        # When not even one fits, the best is cut off and the answer says "length".
        return _render(sorted(chosen or ranked[:1], key=lambda c: c.order))

    def _repeats(self, one: Candidate, other: Candidate) -> bool:
        if one.segment.text == other.segment.text:
            return True
        shared, union = one.terms.keys() & other.terms.keys(), one.terms.keys() | other.terms.keys()
        return len(shared) > self._config.max_overlap * len(union)

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(offsets) for offsets in self._offsets(texts)]

    def _pieces(self, answer: str) -> list[tuple[str, int]]:
        """The answer word by word, each with its tokens."""
        starts = self._offsets([answer])[0][:, 0]
        spans = [match.span() for match in _PIECE.finditer(answer)]
        return [
            (answer[begin:end], int(((starts >= begin) & (starts < end)).sum()))
            for begin, end in spans
        ]


def _by_score(candidate: Candidate) -> tuple[float, int, int]:
    return (-round(candidate.score, 9), *candidate.order)


def _last_user_turn(spec: GenerateSpec) -> str:
    return next((m.content for m in reversed(spec.messages) if m.role == "user"), "")


def _quote(candidate: Candidate) -> str:
    return f"{candidate.segment.text} [{candidate.number}]"


def _render(chosen: Sequence[Candidate]) -> str:
    """The header, then one line per passage; code keeps its own lines."""
    text = HEADER
    previous: Candidate | None = None
    for candidate in chosen:
        code = SegmentKind.CODE in (
            candidate.segment.kind,
            previous.segment.kind if previous else SegmentKind.PROSE,
        )
        same = previous is not None and previous.rank == candidate.rank and not code
        text += (" " if same else "\n") + _quote(candidate)
        previous = candidate
    return text
