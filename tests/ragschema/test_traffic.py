"""Classes and arrivals in a schema file: what is read, and what is refused."""

from __future__ import annotations

import pytest

from ragschema.errors import InvalidInput
from ragschema.traffic import ArrivalsConfig, ClassConfig
from ragschema.workload import parse_schema

BASE = """
version: 1
name: mixed
generator: {model: llama-3-8b}
"""


def test_classes_and_arrivals_are_read() -> None:
    schema = parse_schema(
        BASE
        + """
classes:
  - {name: lookup, share: 0.75, lengths: {output: {p50: 10, p99: 90}}}
  - {name: chat, share: 0.25, retrieves: false, per_sequence: 2}
arrivals: {process: gamma, cv: 3}
""",
        "s.yaml",
    )
    assert [each.name for each in schema.classes] == ["lookup", "chat"]
    assert schema.classes[1] == ClassConfig("chat", 0.25, retrieves=False, per_sequence=2)
    assert schema.arrivals == ArrivalsConfig("gamma", cv=3)


def test_without_them_all_requests_are_alike() -> None:
    schema = parse_schema(BASE, "s.yaml")
    assert schema.classes == ()
    assert schema.arrivals == ArrivalsConfig("poisson")


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ("classes: [{name: a, share: 0.5}, {name: b, share: 0.4}]", "classes.share", "add up to"),
        ("classes: [{name: a, share: 0.5}, {name: a, share: 0.5}]", "classes.1.name", "twice"),
        ("classes: [{name: A b, share: 1}]", "classes.0.name", "pattern"),
        ("classes: [{name: a, share: 0}]", "classes.0.share", "greater than 0"),
        ("classes: [{name: a, share: 1.5}]", "classes.0.share", "less than or equal to 1"),
        ("classes: [{name: a, share: 1, retrieve: no}]", "classes.0.retrieve", "retrieves"),
        (
            "classes: [{name: a, share: 1, lengths: {question: 3}}]",
            "classes.0.lengths.question", "prompt, output",
        ),
        ("classes: [{name: a, share: 1, lengths: {prompt: -3}}]", "classes.0.lengths.prompt",
         "greater than"),
        ("arrivals: {process: weekly}", "arrivals.process", "poisson"),
        ("arrivals: {process: gamma}", "arrivals.cv", "need cv"),
        ("arrivals: {process: bursts}", "arrivals.size", "need size"),
        ("arrivals: {process: trace}", "arrivals.trace", "need trace"),
        ("arrivals: {process: poisson, cv: 2}", "arrivals.cv", "have no cv"),
        ("arrivals: {process: bursts, size: 4, trace: a.csv}", "arrivals.trace", "have no trace"),
        ("arrivals: {process: bursts, size: 0}", "arrivals.size", "greater than"),
        ("arrivals: {process: trace, trace: a.bin}", "arrivals.trace", "pattern"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(more: str, field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_schema(BASE + more, "s.yaml")
    assert caught.value.field == field
    assert said in f"{caught.value} {caught.value.hint}"
