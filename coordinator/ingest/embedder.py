"""The LLM node as ingestion sees it: token borders and passage vectors.

Calls are batched and repeated while the node is busy or restarting, so that a
long ingestion survives what a single query would report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from ragschema import types as t
from ragschema.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    Unavailable,
    UpstreamError,
)
from ragschema.wire import common_pb2, llm_pb2, llm_pb2_grpc
from ragschema.wire.client import NodeClient, say_hello
from ragschema.wire.convert import model_from_wire, role_to_wire, tensor_from_wire

Result = TypeVar("Result")

_CALL_S = 120.0
_FIRST_CALL_S = 10.0
_PATIENCE_S = 90.0
_PIECE_CHARS = 50_000
_BATCH_CHARS = 200_000
_BATCH_TEXTS = 64


class EmbeddingNode:
    """An LLM node with the embed role.

    Args:
        address: host:port.
        patience_s: how long a busy or absent node is waited for, per call.
    """

    def __init__(self, address: str, patience_s: float = _PATIENCE_S) -> None:
        self._client = NodeClient("llm", address)
        self._stub: llm_pb2_grpc.LlmNodeAsyncStub = llm_pb2_grpc.LlmNodeStub(self._client.channel)
        self._patience_s = patience_s

    async def close(self) -> None:
        await self._client.close()

    async def model(self) -> t.ModelInfo:
        """The embedding model, after the version exchange.

        Raises:
            Unavailable: nobody answers at the address.
            VersionMismatch: another protocol, or a node that does not embed.
        """
        context = t.CallContext.start(_FIRST_CALL_S)
        try:
            await say_hello(self._client, self._stub, context, required=("embed",))
            status = await self._client.call(self._stub.Status, llm_pb2.LlmStatusRequest(), context)
        except (Unavailable, DeadlineExceeded) as error:
            raise Unavailable(
                f"no LLM node answers at {self._client.address}: {error.message}",
                field="llm_address",
                hint="start the rig with `ragrig up`, or check the address",
            ) from error
        models = [model_from_wire(m) for m in status.models]
        embedders = [m for m in models if m.role is t.Role.EMBED and m.dim]
        if not embedders:
            raise UpstreamError(f"the LLM node at {self._client.address} names no embedder")
        return embedders[0]

    async def tokenize(self, texts: Sequence[str]) -> list[t.I32]:
        """Token borders of each text: int32 [tokens, 2], in characters."""
        pieces = [
            (i, start, text[start:end])
            for i, text in enumerate(texts)
            for start, end in _pieces(text)
        ]
        parts: list[list[t.I32]] = [[] for _ in texts]
        for batch in _batches(pieces):
            found = await self._tokenize_batch([piece for _, _, piece in batch])
            for (i, start, _), offsets in zip(batch, found, strict=True):
                parts[i].append(offsets + np.int32(start))
        none = np.empty((0, 2), dtype=np.int32)
        return [np.concatenate(found) if found else none for found in parts]

    async def _tokenize_batch(self, texts: list[str]) -> list[t.I32]:
        request = llm_pb2.TokenizeRequest(role=role_to_wire(t.Role.EMBED), texts=texts)

        async def call() -> llm_pb2.TokenizeReply:
            context = t.CallContext.start(_CALL_S)
            reply: llm_pb2.TokenizeReply = await self._client.call(
                self._stub.Tokenize, request, context
            )
            return reply

        reply = await self._patiently(call)
        if len(reply.offsets) != len(texts):
            raise UpstreamError(f"{len(reply.offsets)} tokenized texts for {len(texts)}")
        return [
            _checked_offsets(offsets, len(text))
            for offsets, text in zip(reply.offsets, texts, strict=True)
        ]

    async def embed(self, texts: Sequence[str], dim: int) -> t.F32:
        """Passage vectors: float32 [len(texts), dim], unit length, finite."""
        request = llm_pb2.EmbedRequest(texts=texts, purpose=llm_pb2.EMBED_PURPOSE_PASSAGE)

        async def call() -> llm_pb2.EmbedReply:
            context = t.CallContext.start(_CALL_S)
            reply: llm_pb2.EmbedReply = await self._client.call(self._stub.Embed, request, context)
            return reply

        reply = await self._patiently(call)
        try:
            vectors = tensor_from_wire(reply.vectors, np.float32, 2, "vectors")
        except InvalidInput as error:
            raise UpstreamError(f"the LLM node's vectors are malformed: {error}") from error
        if vectors.shape != (len(texts), dim) or not np.isfinite(vectors).all():
            raise UpstreamError(
                f"the LLM node answered {len(texts)} texts with vectors of shape"
                f" {list(vectors.shape)}, or with NaN"
            )
        return vectors

    async def _patiently(self, call: Callable[[], Awaitable[Result]]) -> Result:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._patience_s
        wait_s = 0.1
        while True:
            try:
                return await call()
            except (Unavailable, Overloaded, DeadlineExceeded) as error:
                if loop.time() + wait_s > give_up_s:
                    raise
                asked = error.retry_after_s if isinstance(error, Overloaded) else 0.0
            except InvalidInput as error:
                # What we sent came from files, but the call was made by us.
                raise UpstreamError(f"the LLM node refused a call: {error}") from error
            await asyncio.sleep(max(wait_s, min(asked, 5.0)))
            wait_s = min(2 * wait_s, 5.0)


def _pieces(text: str) -> list[tuple[int, int]]:
    """Cuts a long text at line ends or spaces; tokenizers do not look across those."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = min(len(text), start + _PIECE_CHARS)
        if end < len(text):
            half = start + _PIECE_CHARS // 2
            for mark in ("\n", " "):
                cut = text.rfind(mark, half, end)
                if cut > 0:
                    end = cut + 1
                    break
        found.append((start, end))
        start = end
    return found


def _batches(pieces: list[tuple[int, int, str]]) -> list[list[tuple[int, int, str]]]:
    batches: list[list[tuple[int, int, str]]] = []
    size = _BATCH_CHARS
    for piece in pieces:
        if size + len(piece[2]) > _BATCH_CHARS or len(batches[-1]) >= _BATCH_TEXTS:
            batches.append([])
            size = 0
        batches[-1].append(piece)
        size += len(piece[2])
    return batches


def _checked_offsets(tensor: common_pb2.Tensor, length: int) -> t.I32:
    try:
        offsets = tensor_from_wire(tensor, np.int32, 2, "offsets")
    except InvalidInput as error:
        raise UpstreamError(f"the LLM node's token borders are malformed: {error}") from error
    if offsets.shape[1] != 2 or (
        len(offsets) and not 0 <= offsets.min() <= offsets.max() <= length
    ):
        raise UpstreamError("the LLM node's token borders lie outside the text")
    return offsets
