"""The mix of requests that a plan serves: what a mean one costs, and single ones by chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ragschema.lengths import LengthConfig, Lengths, lengths_of
from ragschema.planner.cost.batches import Sequences
from ragschema.planner.stages import F64, I64
from ragschema.traffic import ClassConfig
from ragschema.workload import RagSchema

_SEARCHED = ("encode", "retrieval", "rerank")
_REWRITTEN = ("rewrite_prefill", "rewrite_decode")


@dataclass(frozen=True)
class RequestClass:
    """Requests of one kind.

    Attributes:
        share: of all requests.
        skips: names of stages that it passes by.
        question, prompt, output: tokens; independent of each other.
        again: retrievals per answer besides the first.
        hit: share of the passages' tokens whose KV is kept.
    """

    name: str
    share: float
    skips: frozenset[str]
    question: Lengths
    prompt: Lengths
    output: Lengths
    again: int
    hit: float

    @property
    def cached(self) -> F64:
        """Tokens of each prompt length whose KV is there: float64 [prompt values]."""
        prompt = self.prompt.array
        passages = np.maximum(0.0, prompt - self.question.mean)
        cached: F64 = np.minimum(np.floor(passages * self.hit), prompt - 1)
        return cached


@dataclass(frozen=True, eq=False)
class Requests:
    """Single requests, as the simulator plays them.

    Attributes:
        output: float64 [n], tokens.
        again: int64 [n], retrievals during decode.
        work: by stage float64 [n], what a request adds to a batch there beside a mean one; 0:
            it passes the stage by. Stages that are not named take all requests alike.
        of: int64 [n], place of its class in ``names``.
    """

    output: F64
    again: I64
    work: Mapping[str, F64]
    of: I64
    names: tuple[str, ...]


@dataclass(frozen=True)
class Mix:
    """All classes of a workload; shares add up to 1."""

    classes: tuple[RequestClass, ...]

    def share(self, stage: str) -> float:
        """Of requests that go through a stage."""
        return math.fsum(c.share for c in self.classes if stage not in c.skips)

    @cached_property
    def output(self) -> float:
        """Mean tokens of an answer."""
        return math.fsum(c.share * c.output.mean for c in self.classes)

    @cached_property
    def prompt(self) -> float:
        """Mean tokens of a prompt."""
        return math.fsum(c.share * c.prompt.mean for c in self.classes)

    @cached_property
    def again(self) -> float:
        """Mean retrievals per answer besides the first."""
        return math.fsum(c.share * c.again for c in self.classes)

    @cached_property
    def passages(self) -> float:
        """Mean tokens of a prompt that are not the question, where there was a retrieval."""
        found = [c for c in self.classes if "retrieval" not in c.skips]
        total = math.fsum(c.share * max(0.0, c.prompt.mean - c.question.mean) for c in found)
        return total / math.fsum(c.share for c in found) if found else 0.0

    @cached_property
    def read(self) -> Sequences:
        """What prefill computes of a prompt."""
        parts = [(c.share, c.prompt.array, c.cached) for c in self.classes]
        fresh = _mean((s, t - kept) for s, t, kept in parts)
        attended = _mean((s, (t - kept) * (kept + (t - kept + 1) / 2)) for s, t, kept in parts)
        held = _mean((s, t) for s, t, _ in parts)
        square = _mean((s, t**2) for s, t, _ in parts)
        return Sequences(fresh, attended / fresh, held, _spread(square, held))

    @cached_property
    def written(self) -> Sequences:
        """What decode writes of an answer; longer ones are met more often in a batch."""
        parts = [(c.share, c.prompt, c.output) for c in self.classes]
        context = _mean((s, o.array * (t.mean + o.array / 2)) for s, t, o in parts) / self.output
        held = self.prompt + self.output
        square = _mean(
            (s, o.array**2 + 2 * t.mean * o.array + float(np.mean(t.array**2))) for s, t, o in parts
        )
        return Sequences(self.output, context, held, _spread(square, held))

    def sample(self, count: int, seed: int) -> Requests | None:
        """Requests by chance, the same for the same seed; None: all are alike."""
        classes = self.classes
        if len(classes) == 1 and classes[0].prompt.fixed and classes[0].output.fixed:
            return None
        rng = np.random.default_rng((seed, 1))
        of = rng.choice(len(classes), count, p=[c.share for c in classes])
        output, fresh = np.zeros(count), np.zeros(count)
        for at, each in enumerate(classes):
            mine = np.flatnonzero(of == at)
            output[mine] = rng.choice(each.output.array, len(mine))
            fresh[mine] = rng.choice(each.prompt.array - each.cached, len(mine))
        again = np.array([c.again for c in classes])[of]
        work = {"prefill": fresh / self.read.tokens}
        for stage in sorted({name for c in classes for name in c.skips}):
            work[stage] = np.array([float(stage not in c.skips) for c in classes])[of]
        return Requests(output, again, work, of, tuple(c.name for c in classes))


def mix_of(schema: RagSchema) -> Mix:
    """The classes of a schema; one without classes has a single one.

    Raises:
        InvalidInput, NotFound: of lengths, as ``lengths_of`` says.
    """
    given = schema.classes or (ClassConfig("all", 1.0),)
    return Mix(tuple(_class(schema, each, at) for at, each in enumerate(given)))


def _class(schema: RagSchema, given: ClassConfig, at: int) -> RequestClass:
    own, common = given.lengths, schema.lengths
    skips = [] if given.retrieves else list(_SEARCHED)
    skips += [] if given.rewrites else list(_REWRITTEN)
    skips += [] if given.reranks or not given.retrieves else ["rerank"]
    prompt: LengthConfig = common.prompt
    if not given.retrieves and schema.database is not None:
        prompt = common.question
    per_sequence = given.per_sequence or schema.retrieval.per_sequence
    where = f"classes.{at}.lengths"
    return RequestClass(
        given.name,
        given.share,
        frozenset(skips),
        lengths_of(common.question, "lengths.question"),
        lengths_of(own.prompt or prompt, f"{where}.prompt" if own.prompt else "lengths.prompt"),
        lengths_of(
            own.output or common.output, f"{where}.output" if own.output else "lengths.output"
        ),
        per_sequence - 1 if given.retrieves else 0,
        schema.cache.document_kv_hit if given.retrieves else 0.0,
    )


def _mean(parts: Iterable[tuple[float, F64]]) -> float:
    """Over classes by share, and over equally likely values of each."""
    return math.fsum(share * float(np.mean(values)) for share, values in parts)


def _spread(square: float, mean: float) -> float:
    # Of one length, the difference is what rounding leaves.
    variance = square - mean**2
    return math.sqrt(variance) if variance > 1e-9 * square else 0.0
