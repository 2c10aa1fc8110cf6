"""Typed calls to LLM and retrieval nodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from coordinator.nodes.conversation import Conversation, Found
from coordinator.nodes.pooled import PooledClient
from ragschema.errors import Cancelled, Unavailable, UpstreamError
from ragschema.storage.manifest import FileRef
from ragschema.types import (
    F32,
    I32,
    CallContext,
    EmbedPurpose,
    GenerateEvent,
    GenerateSpec,
    Role,
    SearchBatch,
    SearchResult,
    SnapshotId,
)
from ragschema.wire import (
    augment_pb2,
    augment_pb2_grpc,
    convert,
    generating,
    kv_pb2,
    kv_pb2_grpc,
    llm_pb2,
    llm_pb2_grpc,
    raw,
    retrieval_pb2,
    retrieval_pb2_grpc,
    searches,
)
from ragschema.wire.pipelined import PipelinedSearches


@dataclass(frozen=True)
class Embedded:
    """Vectors of a call's texts: float32 [n, dim], unit length, read-only."""

    vectors: F32
    tokens: int


class LlmClient(PooledClient):
    """Calls to one LLM node."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address)
        self.stub = llm_pb2_grpc.LlmNodeStub(self.channel)
        self.kv = kv_pb2_grpc.KvNodeStub(self.channel)
        self.augmenting = augment_pb2_grpc.AugmentNodeStub(self.channel)

    async def status(self, context: CallContext) -> llm_pb2.LlmStatusReply:
        reply = await self.call(self.stub.Status, llm_pb2.LlmStatusRequest(), context)
        return cast("llm_pb2.LlmStatusReply", reply)

    async def embed(
        self, texts: Sequence[str], purpose: EmbedPurpose, context: CallContext
    ) -> Embedded:
        """One vector per text.

        Raises:
            UpstreamError: the node gave another number of vectors.
        """
        request = llm_pb2.EmbedRequest(texts=texts, purpose=convert.purpose_to_wire(purpose))
        reply = await self.call(self.stub.Embed, request, context)
        vectors = convert.tensor_from_wire(reply.vectors, np.float32, 2, "vectors")
        if vectors.shape[0] != len(texts) or not np.isfinite(vectors).all():
            raise UpstreamError(
                f"node {self.name} gave {vectors.shape[0]} vectors, or unusable ones,"
                f" for {len(texts)} texts",
                trace_id=context.trace_id,
            )
        return Embedded(vectors, reply.tokens)

    async def tokenize(
        self, role: Role, texts: Sequence[str], context: CallContext
    ) -> tuple[I32, ...]:
        """Per text int32 [tokens, 2]: first and one past the last character."""
        request = llm_pb2.TokenizeRequest(role=convert.role_to_wire(role), texts=texts)
        reply = await self.call(self.stub.Tokenize, request, context)
        offsets = [convert.tensor_from_wire(o, np.int32, 2, "offsets") for o in reply.offsets]
        if len(offsets) != len(texts) or any(o.shape[1] != 2 for o in offsets):
            raise UpstreamError(
                f"node {self.name} gave borders of {len(offsets)} texts for {len(texts)}",
                trace_id=context.trace_id,
            )
        return tuple(offsets)

    async def rerank(self, query: str, texts: Sequence[str], context: CallContext) -> F32:
        """One score per text, float32 [len(texts)]; larger answers better.

        Raises:
            UpstreamError: the node gave another number of scores.
        """
        request = llm_pb2.RerankRequest(query=query, texts=texts)
        reply = await self.call(self.stub.Rerank, request, context)
        scores = convert.tensor_from_wire(reply.scores, np.float32, 1, "scores")
        if len(scores) != len(texts) or not np.isfinite(scores).all():
            raise UpstreamError(
                f"node {self.name} gave {len(scores)} scores, or unusable ones,"
                f" for {len(texts)} texts",
                trace_id=context.trace_id,
            )
        return scores

    async def rewrite(
        self, request: llm_pb2.RewriteRequest, context: CallContext
    ) -> llm_pb2.RewriteReply:
        """Queries in place of a question; none when the model wrote none."""
        reply = await self.call(self.stub.Rewrite, request, context)
        return cast("llm_pb2.RewriteReply", reply)

    async def index_scan(
        self, collection: str, index: FileRef, queries: F32, nprobe: int, context: CallContext
    ) -> I32:
        """Nearest lists of each query, int32 [n, min(nprobe, lists)].

        Raises:
            NotFound: the node's collection has another index.
            UpstreamError: the answer does not fit the question.
        """
        request = llm_pb2.IndexScanRequest(
            collection=collection,
            index_path=index.path,
            index_crc32=index.crc32,
            queries=convert.tensor_to_wire(queries),
            nprobe=nprobe,
        )
        reply = await self.call(self.stub.IndexScan, request, context)
        lists = convert.tensor_from_wire(reply.lists, np.int32, 2, "lists")
        if len(lists) != len(queries) or lists.shape[1] > nprobe:
            raise UpstreamError(
                f"node {self.name} gave lists of shape {list(lists.shape)}"
                f" for {len(queries)} queries",
                trace_id=context.trace_id,
            )
        return lists

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent]:
        """Pieces of text, then the end; leaving the iteration stops the node's work."""
        request = generating.generate_to_wire(spec)
        messages = cast("Any", self.stream(self.stub.Generate, request, context))
        async with aclosing(messages):
            async for message in messages:
                yield generating.event_from_wire(message)

    async def augment(
        self, start: augment_pb2.AugmentStart, found: Found, context: CallContext
    ) -> AsyncGenerator[GenerateEvent]:
        """The same while ``found`` answers what the node asks meanwhile.

        Each of several answers to a prompt asks by itself; ``found`` runs for them together.
        """
        conversation = Conversation(found)
        said = conversation.said(augment_pb2.AugmentMessage(start=start))
        messages = cast("Any", self.stream(self.augmenting.Augment, said, context))
        async with aclosing(conversation.heard(messages)) as events:
            async for event in events:
                yield generating.augmented_from_wire(event)

    async def prefill(self, spec: GenerateSpec, context: CallContext) -> kv_pb2.PrefillReply:
        """Reads a prompt and draws its first token; the KV waits at the node."""
        reply = await self.call(self.kv.Prefill, generating.generate_to_wire(spec), context)
        return cast("kv_pb2.PrefillReply", reply)

    async def decode(
        self, request: kv_pb2.DecodeRequest, context: CallContext
    ) -> AsyncGenerator[kv_pb2.DecodeEvent]:
        """Tokens, then the end; leaving the iteration stops the node's work."""
        messages = cast("Any", self.stream(self.kv.Decode, request, context))
        async with aclosing(messages):
            async for message in messages:
                yield message

    async def release_kv(self, ticket: str, context: CallContext) -> None:
        """Frees what a ticket of ``prefill`` stands for."""
        await self.call(self.kv.ReleaseKv, kv_pb2.ReleaseKvRequest(ticket=ticket), context)


class RetrievalClient(PooledClient):
    """Calls to one retrieval node.

    Attributes:
        streams: send searches into one long-lived stream, which takes about half
            as long as a call each; for nodes with the capability "stream".
    """

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address)
        self.stub = retrieval_pb2_grpc.RetrievalNodeStub(self.channel)
        self.streams = False
        self._search = self.channel.unary_unary(raw.SEARCH_METHOD, bytes, bytes)
        self._pipelined = PipelinedSearches(self.channel, name)

    async def status(self, context: CallContext) -> retrieval_pb2.RetrievalStatusReply:
        reply = await self.call(self.stub.Status, retrieval_pb2.RetrievalStatusRequest(), context)
        return cast("retrieval_pb2.RetrievalStatusReply", reply)

    async def load(
        self, snapshot: SnapshotId, shards: Sequence[int], context: CallContext
    ) -> tuple[int, ...]:
        """Makes shards searchable; gives the live rows of each."""
        request = retrieval_pb2.LoadShardsRequest(
            snapshot=convert.snapshot_to_wire(snapshot), shards=shards
        )
        reply = await self.call(self.stub.LoadShards, request, context)
        return tuple(reply.rows)

    async def unload(
        self, snapshot: SnapshotId, context: CallContext, shards: Sequence[int] = ()
    ) -> None:
        """Frees some shards of a snapshot; none named: all of it."""
        request = retrieval_pb2.UnloadShardsRequest(
            snapshot=convert.snapshot_to_wire(snapshot), shards=shards
        )
        await self.call(self.stub.UnloadShards, request, context)

    async def search(self, batch: SearchBatch, context: CallContext) -> SearchResult:
        """Nearest rows among ``batch.shards``.

        Raises:
            UpstreamError: the answer does not fit the question.
        """
        result = searches.result_from_parts(await self._ask(batch, context))
        if result.distances.shape != (batch.queries.shape[0], batch.k) or (
            result.counts.size and not 0 <= result.counts.min() <= result.counts.max() <= batch.k
        ):
            raise UpstreamError(
                f"node {self.name} answered {batch.queries.shape[0]} queries with"
                f" distances of shape {list(result.distances.shape)}",
                trace_id=context.trace_id,
            )
        return result

    async def _ask(self, batch: SearchBatch, context: CallContext) -> searches.ReplyParts:
        if not self.streams:
            return raw.read_reply(await self.call(self._search, raw.write_search(batch), context))
        if self._closed:
            raise self._gone(context)
        try:
            return await self._pipelined.search(batch, context)
        except (Unavailable, Cancelled) as error:
            if self._closed:
                raise self._gone(context) from error
            raise

    async def close(self) -> None:
        self._closed = True
        await self._pipelined.close()
        await super().close()
