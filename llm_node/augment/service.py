"""The gRPC service of retrieval during generation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from llm_node.admission import Admission
from llm_node.augment.plan import Found, Wanted
from llm_node.augment.session import AugmentEnd, AugmentEvent, Session
from llm_node.augment.states import States, hidden_states
from llm_node.augment.wire import found_from_wire, plan_from_wire, wanted_to_wire
from llm_node.checks import check_generate, check_texts
from llm_node.config import LlmOptions
from llm_node.deadlines import context_of, events_within, within
from llm_node.generate.hf import HfGenerator
from ragschema.errors import Cancelled, IncompatibleRequest
from ragschema.types import Role
from ragschema.wire import augment_pb2, augment_pb2_grpc
from ragschema.wire.convert import tensor_to_wire
from ragschema.wire.generating import done_to_wire, piece_to_wire

_Context = grpc.aio.ServicerContext[Any, Any]
_Messages = AsyncIterator[augment_pb2.AugmentMessage]

#: Of one HiddenStates call: 8 192 states of 1 024 numbers fill half a message.
_MOST_STATE_TOKENS = 8192


class AugmentService(augment_pb2_grpc.AugmentNodeServicer):
    """For nodes of the role generate.

    Args:
        generations: slots shared with the node's other services.
    """

    def __init__(self, generator: HfGenerator, options: LlmOptions, generations: Admission) -> None:
        self._generator = generator
        self._options = options
        self._running = generations
        self._reading = Admission("calls for hidden states", 1, options.max_waiting)

    async def Augment(
        self, request_iterator: _Messages, context: _Context
    ) -> AsyncIterator[augment_pb2.AugmentEvent]:
        call = context_of(context)
        first = await within(_next(request_iterator), call)
        # Refused once its message is here: a client that still sends would see that break off.
        self._require_generate()
        plan = plan_from_wire(first)
        check_generate(plan.spec, self._options.limits)
        session = Session(self._generator, plan, call)
        events = events_within(self._admitted(session, request_iterator), call)
        async with aclosing(events):
            async for event in events:
                yield _to_wire(event)

    async def _admitted(
        self, session: Session, messages: _Messages
    ) -> AsyncGenerator[AugmentEvent, None]:
        async def answer() -> tuple[int, Found]:
            message = await _next(messages)
            return message.index, found_from_wire(message)

        async with self._running.slot() as queue_us, aclosing(session.run(answer)) as events:
            async for event in events:
                if isinstance(event, AugmentEnd):
                    yield replace(event, end=replace(event.end, queue_us=queue_us))
                else:
                    yield event

    async def HiddenStates(
        self, request: augment_pb2.HiddenStatesRequest, context: _Context
    ) -> augment_pb2.HiddenStatesReply:
        self._require_generate()
        texts, limits, call = list(request.texts), self._options.limits, context_of(context)
        check_texts(texts, limits.max_texts, limits.max_embed_bytes)
        async with self._reading.slot():
            work = hidden_states(self._generator, texts, _MOST_STATE_TOKENS, call)
            found = await within(work, call)
        return _states_to_wire(found)

    def _require_generate(self) -> None:
        if Role.GENERATE not in self._options.roles:
            raise IncompatibleRequest(
                f"LLM node {self._options.name!r} does not have the role generate",
                field="role",
                hint="send the call to a node with it",
            )


async def _next(messages: _Messages) -> augment_pb2.AugmentMessage:
    try:
        return await anext(messages)
    except StopAsyncIteration as error:
        raise Cancelled("the caller left while the sequence waited for its answer") from error


def _states_to_wire(found: list[States]) -> augment_pb2.HiddenStatesReply:
    """Rows of all texts, one behind the other; none where there is no text."""
    read = [one for one in found if len(one.hidden)]
    hidden = np.concatenate([one.hidden for one in read]) if read else np.zeros((0, 0), np.float32)
    tokens = np.concatenate([one.next_tokens for one in read]) if read else np.zeros(0, np.int32)
    return augment_pb2.HiddenStatesReply(
        hidden=tensor_to_wire(hidden),
        next_tokens=tensor_to_wire(tokens),
        counts=tensor_to_wire(np.array([len(one.next_tokens) for one in found], np.int32)),
    )


def _to_wire(event: AugmentEvent) -> augment_pb2.AugmentEvent:
    if isinstance(event, Wanted):
        return augment_pb2.AugmentEvent(wanted=wanted_to_wire(event))
    if isinstance(event, AugmentEnd):
        done = augment_pb2.AugmentDone(
            done=done_to_wire(event.end),
            rounds=event.rounds,
            context_tokens=event.context_tokens,
            dropped_passages=event.dropped,
        )
        return augment_pb2.AugmentEvent(done=done)
    return augment_pb2.AugmentEvent(token=piece_to_wire(event))
