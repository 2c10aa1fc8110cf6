"""The LLM node as the builder of a datastore sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.errors import IncompatibleRequest, UpstreamError
from ragschema.types import F32, I32, CallContext, ModelInfo, Role
from ragschema.wire import augment_pb2, augment_pb2_grpc, llm_pb2, llm_pb2_grpc
from ragschema.wire.client import NodeClient, say_hello
from ragschema.wire.convert import model_from_wire, tensor_from_wire

_FIRST_CALL_S = 10.0
_CALL_S = 3600.0


@dataclass(frozen=True)
class StateRows:
    """Rows of one text.

    Attributes:
        hidden: float32 [n, hidden], finite.
        next_tokens: int32 [n].
    """

    hidden: F32
    next_tokens: I32


class StatesNode:
    """A node of the role generate whose model runs there."""

    def __init__(self, address: str) -> None:
        self._client = NodeClient("llm", address)
        self._llm: llm_pb2_grpc.LlmNodeAsyncStub = llm_pb2_grpc.LlmNodeStub(self._client.channel)
        self._states: augment_pb2_grpc.AugmentNodeAsyncStub = augment_pb2_grpc.AugmentNodeStub(
            self._client.channel
        )

    async def close(self) -> None:
        await self._client.close()

    async def model(self) -> ModelInfo:
        """The model whose states are stored.

        Raises:
            Unavailable: nobody answers.
            IncompatibleRequest: the node runs no model of its own.
        """
        context = CallContext.start(_FIRST_CALL_S)
        await say_hello(self._client, self._llm, context, required=("generate",))
        status = await self._client.call(self._llm.Status, llm_pb2.LlmStatusRequest(), context)
        models = [model_from_wire(m) for m in status.models]
        found = next((m for m in models if m.role is Role.GENERATE), None)
        if found is None or not found.name.startswith("hf:"):
            raise IncompatibleRequest(
                f"the node at {self._client.address} runs no model with states",
                field="llm",
                hint="use a node whose generator is hf:DIR",
            )
        return found

    async def states(self, texts: Sequence[str]) -> list[StateRows]:
        """Of each text, in one call.

        Raises:
            PayloadTooLarge: a text is longer than the model reads.
            UpstreamError: the reply does not fit.
        """
        request = augment_pb2.HiddenStatesRequest(texts=texts)
        context = CallContext.start(_CALL_S)
        reply = await self._client.call(self._states.HiddenStates, request, context)
        hidden = tensor_from_wire(reply.hidden, np.float32, 2, "hidden")
        tokens = tensor_from_wire(reply.next_tokens, np.int32, 1, "next_tokens")
        counts = tensor_from_wire(reply.counts, np.int32, 1, "counts")
        total = int(counts.sum())
        if len(counts) != len(texts) or len(hidden) != total or len(tokens) != total:
            raise UpstreamError(f"{len(hidden)} states of {len(counts)} texts for {len(texts)}")
        if not np.isfinite(hidden).all() or (total and tokens.min() < 0):
            raise UpstreamError("the node gave states or tokens that cannot be used")
        ends = np.cumsum(counts)
        return [
            StateRows(hidden[end - count : end], tokens[end - count : end])
            for end, count in zip(ends, counts, strict=True)
        ]
