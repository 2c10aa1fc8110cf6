"""Scores sentences of the passages for a question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_node.generate.segments import Segment, SegmentKind, split_passage
from llm_node.generate.terms import terms_of
from ragschema.types import Passage

_K1 = 1.2
_B = 0.5
_KIND_WEIGHT = {SegmentKind.PROSE: 1.0, SegmentKind.ITEM: 0.95, SegmentKind.CODE: 0.5}
_LEXICAL, _PASSAGE, _RANK, _LEAD = 0.55, 0.2, 0.15, 0.1
_SHORT_TERMS = 3


@dataclass(frozen=True)
class Candidate:
    """A sentence that may be quoted.

    Attributes:
        rank: place of its passage in the list, 0 is the best.
        number: how the answer cites the passage.
        terms: its terms with their counts.
        weight: 0 .. 1, less for code, fragments and very short sentences.
        score: 0 .. about 1, larger fits the question better.
    """

    rank: int
    number: int
    segment: Segment
    terms: Counter[str]
    weight: float
    score: float = 0.0

    @property
    def order(self) -> tuple[int, int]:
        """Reading order: passage, then position."""
        return (self.rank, self.segment.position)


def score_candidates(question: str, passages: Sequence[Passage]) -> list[Candidate]:
    """Every sentence of the passages with its score, in reading order.

    The score adds a BM25 of the question's terms, with document frequencies
    counted over these sentences, the share of the question its passage covers,
    the passage's rank, and a little for a passage's first sentence.
    """
    found = [
        _candidate(rank, passage.number, segment)
        for rank, passage in enumerate(passages)
        for segment in split_passage(passage.text)
        if segment.kind is not SegmentKind.HEADING
    ]
    query = terms_of(question)
    idf = _idf(query, found)
    covered = [_covered(idf, terms_of(f"{p.title}\n{p.text}")) for p in passages]
    average = sum(sum(c.terms.values()) for c in found) / max(1, len(found))
    scored: list[Candidate] = []
    leads: set[int] = set()
    for candidate in found:
        score = _LEXICAL * _bm25(candidate.terms, idf, average)
        score += _PASSAGE * covered[candidate.rank] + _RANK / math.sqrt(1 + candidate.rank)
        if candidate.segment.kind is SegmentKind.PROSE and candidate.rank not in leads:
            leads.add(candidate.rank)
            score += _LEAD
        scored.append(replace(candidate, score=score * candidate.weight))
    return scored


def _idf(query: Counter[str], candidates: Sequence[Candidate]) -> dict[str, float]:
    total = len(candidates)
    frequency = {term: sum(term in c.terms for c in candidates) for term in query}
    return {t: math.log(1 + (total - n + 0.5) / (n + 0.5)) for t, n in frequency.items()}


def _bm25(terms: Counter[str], idf: dict[str, float], average: float) -> float:
    """0 .. 1: the share of the best sum a sentence could reach."""
    best = sum(idf.values())
    if not best:
        return 0.0
    norm = _K1 * (1 - _B + _B * sum(terms.values()) / max(average, 1.0))
    reached = sum(weight * terms[t] / (terms[t] + norm) for t, weight in idf.items() if terms[t])
    return min(1.0, reached * (1 + _K1 * (1 - _B)) / best)


def _covered(idf: dict[str, float], terms: Counter[str]) -> float:
    best = sum(idf.values())
    return sum(weight for t, weight in idf.items() if t in terms) / best if best else 0.0


def _candidate(rank: int, number: int, segment: Segment) -> Candidate:
    terms = terms_of(segment.text)
    weight = _KIND_WEIGHT[segment.kind]
    if segment.kind is SegmentKind.PROSE:
        starts_inside = segment.position == 0 and segment.text[:1].islower()
        if starts_inside or segment.text[-1:] not in ".!?:)\"'\u3002\u2026`":
            weight *= 0.85
    if sum(terms.values()) < _SHORT_TERMS:
        weight *= 0.7
    return Candidate(rank, number, segment, terms, weight)
