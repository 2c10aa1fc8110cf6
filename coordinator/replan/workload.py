"""The workload that a plan was made for, with what was observed in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coordinator.replan.observe import Observed
from ragschema.lengths import LengthConfig, LengthsConfig, PercentilesConfig, lengths_of
from ragschema.planner.mix import mix_of
from ragschema.traffic import ClassConfig, ClassLengthsConfig
from ragschema.workload import CacheConfig, RagSchema, RetrievalConfig

#: Observed lengths are means: the shape of a distribution stays the schema's.
_SHARES: Final = (0.1, 0.5, 0.9, 0.99)


def seen_as(schema: RagSchema, observed: Observed) -> RagSchema:
    """The schema with lengths, retrievals and hit rate as they were observed.

    Lengths of all classes are stretched alike, so that their mean is the observed one.

    Raises:
        InvalidInput, NotFound: of a trace that the schema names.
    """
    mix = mix_of(schema)
    prompt = 1.0 if not observed.prompt else observed.prompt / mix.prompt
    output = 1.0 if not observed.output else observed.output / mix.output
    own = schema.lengths
    lengths = LengthsConfig(
        _no_longer(own.question, own.prompt, prompt),
        _stretched(own.prompt, prompt, "lengths.prompt"),
        _stretched(own.output, output, "lengths.output"),
    )
    classes = tuple(_class(each, prompt, output) for each in schema.classes)
    return replace(
        schema, lengths=lengths, classes=classes, cache=_cache(schema, observed),
        retrieval=_retrieval(schema, observed),
    )  # fmt: skip


def _class(each: ClassConfig, prompt: float, output: float) -> ClassConfig:
    own = each.lengths
    lengths = ClassLengthsConfig(
        None if own.prompt is None else _stretched(own.prompt, prompt, "classes.lengths.prompt"),
        None if own.output is None else _stretched(own.output, output, "classes.lengths.output"),
    )
    return replace(each, lengths=lengths)


def _stretched(config: LengthConfig, factor: float, field: str) -> LengthConfig:
    if factor == 1.0:
        return config
    if isinstance(config, int):
        return max(1, round(config * factor))
    known = lengths_of(config, field)
    at = [known.values[min(len(known.values) - 1, int(s * len(known.values)))] for s in _SHARES]
    p10, p50, p90, p99 = (max(1, round(value * factor)) for value in at)
    least, most = (max(1, round(value * factor)) for value in (known.values[0], known.values[-1]))
    return PercentilesConfig(p50=p50, p99=p99, min=least, p10=p10, p90=p90, max=most)


def _no_longer(question: LengthConfig, prompt: LengthConfig, factor: float) -> LengthConfig:
    """A question is part of its prompt."""
    shortest = lengths_of(prompt, "lengths.prompt").values[0] * factor
    longest = lengths_of(question, "lengths.question").values[-1]
    if longest <= shortest:
        return question
    return _stretched(question, max(1.0, shortest) / longest, "lengths.question")


def _cache(schema: RagSchema, observed: Observed) -> CacheConfig:
    if observed.prefix_hit is None:
        return schema.cache
    mix = mix_of(schema)
    question = sum(c.share * c.question.mean for c in mix.classes)
    prompt = observed.prompt or mix.prompt
    passages = max(1.0, prompt - question)
    return replace(schema.cache, document_kv_hit=min(1.0, observed.prefix_hit * prompt / passages))


def _retrieval(schema: RagSchema, observed: Observed) -> RetrievalConfig:
    """Answers that never retrieve again are not made to, and the other way round."""
    if schema.retrieval.per_sequence == 1 or not observed.answers:
        return schema.retrieval
    return replace(schema.retrieval, per_sequence=max(2, 1 + round(observed.again)))
