"""Messages of the Augment stream and what they mean here."""

from __future__ import annotations

import math

import numpy as np

from llm_node.augment.plan import (
    AugmentPlan,
    Found,
    FoundNeighbours,
    FoundPassages,
    IntervalPlan,
    NeighbourPlan,
    Wanted,
)
from ragschema.errors import InvalidInput
from ragschema.wire import augment_pb2
from ragschema.wire.convert import require_finite, tensor_from_wire, tensor_to_wire
from ragschema.wire.generating import generate_from_wire

_MOST_TRIGGERS = 64
_MOST_PASSAGES = 256


def plan_from_wire(message: augment_pb2.AugmentMessage) -> AugmentPlan:
    """Raises InvalidInput when the first message is no start, or out of range."""
    if message.WhichOneof("message") != "start":
        raise InvalidInput("the first message is no start", field="start")
    start = message.start
    kind = start.WhichOneof("kind")
    if kind is None:
        raise InvalidInput(
            "it is not told when to retrieve", field="kind", hint="set interval or neighbours"
        )
    spec = generate_from_wire(start.request)
    if kind == "interval":
        return AugmentPlan(spec, _interval(start.interval))
    lam, temperature = start.neighbours.lam, start.neighbours.temperature
    if not 0 <= lam <= 1:
        raise InvalidInput(f"{lam} is no weight", field="lam", hint="use 0 to 1")
    if not 0 < temperature < math.inf:
        raise InvalidInput(
            f"{temperature} is no temperature", field="temperature", hint="use more than 0"
        )
    return AugmentPlan(spec, NeighbourPlan(lam, temperature))


def _interval(message: augment_pb2.IntervalRetrieval) -> IntervalPlan:
    if not message.every_tokens and not message.triggers:
        raise InvalidInput(
            "neither an interval nor a trigger is set",
            field="every_tokens",
            hint="set every_tokens, triggers, or both",
        )
    if len(message.triggers) > _MOST_TRIGGERS:
        raise InvalidInput(
            f"{len(message.triggers)} triggers are more than {_MOST_TRIGGERS}", field="triggers"
        )
    return IntervalPlan(
        every_tokens=message.every_tokens or None,
        triggers=tuple(message.triggers),
        max_rounds=message.max_rounds,
        recent_tokens=message.recent_tokens,
        want_hidden=message.want_hidden,
    )


def found_from_wire(message: augment_pb2.AugmentMessage) -> Found:
    """Raises InvalidInput when the message answers nothing."""
    kind = message.WhichOneof("message")
    if kind == "passages":
        texts = tuple(message.passages.texts)
        if len(texts) > _MOST_PASSAGES:
            raise InvalidInput(
                f"{len(texts)} passages are more than {_MOST_PASSAGES}", field="passages"
            )
        return FoundPassages(texts)
    if kind == "neighbours":
        tokens = tensor_from_wire(message.neighbours.tokens, np.int32, 1, "tokens")
        distances = tensor_from_wire(message.neighbours.distances, np.float32, 1, "distances")
        require_finite(distances[np.newaxis], "distances")
        return FoundNeighbours(tokens.copy(), distances.copy())
    raise InvalidInput(f"the message {kind} answers nothing", field="message")


def wanted_to_wire(wanted: Wanted) -> augment_pb2.RetrievalWanted:
    message = augment_pb2.RetrievalWanted(
        round=wanted.round,
        reason=wanted.reason,
        recent_text=wanted.recent,
        index=wanted.index,
    )
    if wanted.hidden is not None:
        message.hidden.CopyFrom(tensor_to_wire(wanted.hidden))
    return message
