"""Generations to protobuf and back; everything that arrives is checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema import errors as e
from ragschema import types as t
from ragschema.wire import generating as g
from ragschema.wire import llm_pb2
from tests.ragschema.wire.making import U32, U64, Words, through_bytes

Penalties = st.floats(-2, 2)
samplings = st.builds(
    t.Sampling,
    max_tokens=st.integers(100, 1 << 20),
    temperature=st.floats(0, 100, width=32),
    top_p=st.floats(0, 1, width=32, exclude_min=True),
    seed=st.none() | U64,
    stop=st.lists(Words, max_size=3).map(tuple),
    min_tokens=st.integers(0, 100),
    top_k=st.integers(0, (1 << 31) - 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.01, 100),
    presence_penalty=Penalties,
    frequency_penalty=Penalties,
    stop_ids=st.lists(st.integers(0, (1 << 31) - 1), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
    n=st.integers(1, 16),
)
specs = st.builds(
    t.GenerateSpec,
    messages=st.lists(st.builds(t.ChatMessage, Words, Words), max_size=3).map(tuple),
    question=Words,
    passages=st.lists(st.builds(t.Passage, U32, Words, Words), max_size=3).map(tuple),
    sampling=samplings,
)


@given(specs)
def test_generations_round_trip(spec: t.GenerateSpec) -> None:
    assert g.generate_from_wire(through_bytes(g.generate_to_wire(spec))) == spec


def test_what_an_older_caller_leaves_out_changes_nothing() -> None:
    message = llm_pb2.GenerateRequest(sampling=llm_pb2.Sampling(max_tokens=9, top_p=1.0))
    assert g.generate_from_wire(message).sampling == t.Sampling(max_tokens=9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", (1 << 20) + 1),
        ("temperature", -0.5),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 3.0),
        ("min_tokens", 257),
        ("logprobs", 21),
        ("n", 17),
    ],
)
def test_sampling_out_of_range_names_the_field(name: str, value: Any) -> None:
    message = g.generate_to_wire(t.GenerateSpec((), "q", ()))
    setattr(message.sampling, name, value)
    with pytest.raises(e.InvalidInput) as caught:
        g.generate_from_wire(message)
    assert caught.value.field == f"sampling.{name}"


chances = st.builds(t.TokenChance, Words, st.binary(max_size=4), st.floats(-1e3, 0))
logprobs = st.builds(t.TokenLogprob, chances, st.lists(chances, max_size=2).map(tuple))
pieces = st.builds(t.TokenPiece, Words, U32, U32, st.lists(logprobs, max_size=2).map(tuple))
events: st.SearchStrategy[t.GenerateEvent] = pieces | st.builds(
    t.GenerateEnd, st.sampled_from(["stop", "length"]), U64, U64, U32, U32, U32, U32
)


@given(events)
def test_events_round_trip(event: t.GenerateEvent) -> None:
    assert g.event_from_wire(through_bytes(g.event_to_wire(event))) == event


def test_an_event_of_an_unknown_kind_is_the_upstreams_fault() -> None:
    with pytest.raises(e.UpstreamError):
        g.event_from_wire(llm_pb2.GenerateEvent())
