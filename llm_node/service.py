"""The gRPC service of an LLM node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from llm_node.admission import Admission
from llm_node.checks import check_generate, check_rewrite, check_scan, check_texts
from llm_node.deadlines import context_of, events_within, within
from llm_node.device.scheduler import LaneUsage
from llm_node.index_scan.index_id import IndexId
from llm_node.node import EngineStatus, LoadedNode
from ragschema.errors import PayloadTooLarge
from ragschema.types import (
    I32,
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateEvent,
    GenerateSpec,
)
from ragschema.wire import common_pb2, llm_pb2, llm_pb2_grpc
from ragschema.wire.convert import (
    model_to_wire,
    purpose_from_wire,
    require_finite,
    role_from_wire,
    tensor_from_wire,
    tensor_to_wire,
)
from ragschema.wire.generating import event_to_wire, generate_from_wire
from ragschema.wire.serving import Greeter

SERVICE_NAME = llm_pb2.DESCRIPTOR.services_by_name["LlmNode"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class LlmService(llm_pb2_grpc.LlmNodeServicer):
    """Admission, limits and deadlines around a loaded node's models."""

    def __init__(self, node: LoadedNode) -> None:
        options = node.options
        self._node = node
        self._limits = options.limits
        self._greeter = Greeter(options.name, "llm", node.capabilities())
        self._generations = Admission("generations", options.max_running, options.max_waiting)
        self._tokenizing = Admission("tokenize calls", 1, options.max_waiting)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        self._requests = self._cancelled = self._tokens = 0

    @property
    def generations(self) -> Admission:
        """Slots of all that writes or reads prompts here, by whichever service."""
        return self._generations

    async def Hello(
        self, request: common_pb2.HelloRequest, context: _Context
    ) -> common_pb2.HelloReply:
        return self._greeter.hello(request)

    async def Status(
        self, request: llm_pb2.LlmStatusRequest, context: _Context
    ) -> llm_pb2.LlmStatusReply:
        """Generations and encodings together, running and waiting."""
        encodes_running, encodes_waiting = self._node.encoding_load()
        return llm_pb2.LlmStatusReply(
            models=[model_to_wire(model) for model in self._node.models()],
            running=self._generations.running + encodes_running,
            waiting=self._generations.waiting + encodes_waiting,
            requests_total=self._requests,
            cancelled_total=self._cancelled,
            tokens_total=self._tokens,
            uptime_s=self._greeter.uptime_s(),
            engine=_engine_to_wire(self._node.engine_status()),
            devices=[_share_to_wire(usage) for usage in self._node.devices.usage()],
        )

    async def Tokenize(
        self, request: llm_pb2.TokenizeRequest, context: _Context
    ) -> llm_pb2.TokenizeReply:
        role = role_from_wire(request.role, "role")
        texts = list(request.texts)
        check_texts(texts, self._limits.max_texts, self._limits.max_tokenize_bytes)
        async with self._tokenizing.slot():
            work = asyncio.get_running_loop().run_in_executor(
                self._worker, self._node.token_offsets, role, texts
            )
            offsets = await within(work, context_of(context))
        self._check_reply(offsets)
        return llm_pb2.TokenizeReply(offsets=[tensor_to_wire(one) for one in offsets])

    def _check_reply(self, offsets: list[I32]) -> None:
        size = sum(one.nbytes for one in offsets)
        if size > self._limits.max_tokenize_reply_bytes:
            raise PayloadTooLarge(
                f"the token borders of these texts fill {size} bytes",
                field="texts",
                hint="split them over several calls",
            )

    async def Embed(self, request: llm_pb2.EmbedRequest, context: _Context) -> llm_pb2.EmbedReply:
        scheduler = self._node.scheduler
        texts = list(request.texts)
        check_texts(texts, self._limits.max_texts, self._limits.max_embed_bytes)
        self._requests += 1
        try:
            work = scheduler.embed(texts, purpose_from_wire(request.purpose))
            done = await within(work, context_of(context))
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        self._tokens += done.tokens
        return llm_pb2.EmbedReply(
            vectors=tensor_to_wire(done.vectors),
            tokens=done.tokens,
            truncated=done.truncated,
            queue_us=done.queue_us,
            compute_us=done.compute_us,
        )

    async def Rerank(
        self, request: llm_pb2.RerankRequest, context: _Context
    ) -> llm_pb2.RerankReply:
        queue = self._node.reranks
        texts = list(request.texts)
        check_texts([*texts, request.query], self._limits.max_texts, self._limits.max_embed_bytes)
        self._requests += 1
        try:
            done = await within(queue.rank(request.query, texts), context_of(context))
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        self._tokens += done.tokens
        return llm_pb2.RerankReply(
            scores=tensor_to_wire(done.scores),
            tokens=done.tokens,
            truncated=done.truncated,
            queue_us=done.queue_us,
            compute_us=done.compute_us,
        )

    async def IndexScan(
        self, request: llm_pb2.IndexScanRequest, context: _Context
    ) -> llm_pb2.IndexScanReply:
        scanner = self._node.scanner
        queries = tensor_from_wire(request.queries, np.float32, 2, "queries")
        require_finite(queries, "queries")
        check_scan(len(queries), request.nprobe, self._limits)
        index = IndexId(request.collection, request.index_path, request.index_crc32)
        self._requests += 1
        try:
            work = scanner.scan(index, queries, request.nprobe)
            done = await within(work, context_of(context))
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        return llm_pb2.IndexScanReply(
            lists=tensor_to_wire(done.lists), queue_us=done.queue_us, compute_us=done.compute_us
        )

    async def Rewrite(
        self, request: llm_pb2.RewriteRequest, context: _Context
    ) -> llm_pb2.RewriteReply:
        rewriter, call = self._node.rewriter, context_of(context)
        history = [ChatMessage(turn.role, turn.content) for turn in request.history]
        check_rewrite(request.question, history, request.max_queries, self._limits)
        self._requests += 1
        try:
            async with self._generations.slot() as queue_us:
                work = rewriter.rewrite(request.question, history, request.max_queries, call)
                done = await within(work, call)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        self._tokens += done.end.prompt_tokens + done.end.completion_tokens
        return llm_pb2.RewriteReply(
            queries=done.queries,
            prompt_tokens=done.end.prompt_tokens,
            completion_tokens=done.end.completion_tokens,
            queue_us=queue_us,
            compute_us=done.end.total_us,
        )

    async def Generate(
        self, request: llm_pb2.GenerateRequest, context: _Context
    ) -> AsyncGenerator[llm_pb2.GenerateEvent, None]:
        generator = self._node.generating
        spec = generate_from_wire(request)
        check_generate(spec, self._limits)
        call = context_of(context)
        self._requests += 1
        try:
            events = events_within(self._admitted(generator.generate, spec, call), call)
            async with aclosing(events):
                async for event in events:
                    yield event_to_wire(event)
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled += 1
            raise

    async def _admitted(
        self, generate: Any, spec: GenerateSpec, call: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """The generator's events once a slot is free; the end tells the wait."""
        async with self._generations.slot() as queue_us, aclosing(generate(spec, call)) as events:
            async for event in events:
                if isinstance(event, GenerateEnd):
                    # All answers to a prompt share it.
                    self._tokens += 0 if event.index else event.prompt_tokens
                    self._tokens += event.completion_tokens
                    yield _with_wait(event, queue_us)
                else:
                    yield event

    async def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)
        await self._node.close()


def _share_to_wire(usage: LaneUsage) -> llm_pb2.DeviceShare:
    return llm_pb2.DeviceShare(
        device=usage.device,
        roles=usage.name,
        share=usage.weight,
        units_total=usage.units,
        busy_us_total=int(usage.busy_s * 1e6),
        wait_us_total=int(usage.waited_s * 1e6),
        longest_wait_us=int(usage.longest_wait_s * 1e6),
    )


def _engine_to_wire(status: EngineStatus | None) -> llm_pb2.EngineStatus | None:
    if status is None:
        return None
    stats = status.stats
    return llm_pb2.EngineStatus(
        steps_total=stats.steps,
        computed_tokens_total=stats.computed_tokens,
        step_us_total=stats.steps_us,
        batch_tokens=stats.batch_tokens,
        step_us=stats.step_us,
        running=stats.running,
        waiting=stats.waiting,
        paused=stats.paused,
        preempted_total=stats.preempted,
        kv_blocks_used=stats.blocks_used,
        kv_blocks=stats.blocks_total,
        block_tokens=status.block_tokens,
        prefix_query_tokens_total=stats.prefix_query_tokens,
        prefix_hit_tokens_total=stats.prefix_hit_tokens,
        max_tokens=status.max_tokens,
    )


def _with_wait(end: GenerateEnd, queue_us: int) -> GenerateEnd:
    """A first token counts from the request's arrival, as the total does."""
    first_us = end.first_token_us + queue_us if end.first_token_us else 0
    return replace(
        end, queue_us=queue_us, first_token_us=first_us, total_us=end.total_us + queue_us
    )
