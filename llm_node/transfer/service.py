"""The gRPC service of the roles prefill and decode."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from llm_node.admission import Admission
from llm_node.checks import check_generate
from llm_node.config import LlmOptions
from llm_node.deadlines import context_of, events_within, within
from llm_node.generate.hf import HfGenerator
from llm_node.transfer.codec import to_parts
from llm_node.transfer.decode import Decoded, decode
from llm_node.transfer.known import known_tokens
from llm_node.transfer.prefill import Prefilled, prefill
from llm_node.transfer.sources import Sources
from llm_node.transfer.store import SnapshotStore
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.types import CallContext, GenerateEnd, GenerateSpec, Role
from ragschema.wire import kv_pb2, kv_pb2_grpc, llm_pb2
from ragschema.wire.generating import done_to_wire, generate_from_wire, logprobs_to_wire

SERVICE_NAME = kv_pb2.DESCRIPTOR.services_by_name["KvNode"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class KvService(kv_pb2_grpc.KvNodeServicer):
    """Prefill, the snapshots that wait behind it, and decode.

    Args:
        generations: slots shared with the node's other services.
        max_held_bytes: of snapshots that decode nodes have not done with.
    """

    def __init__(
        self,
        generator: HfGenerator,
        options: LlmOptions,
        generations: Admission,
        max_held_bytes: int = 1 << 30,
    ) -> None:
        self._generator = generator
        self._options = options
        self._store = SnapshotStore(max_held_bytes)
        self._sources = Sources()
        self._running = generations

    async def Prefill(
        self, request: llm_pb2.GenerateRequest, context: _Context
    ) -> kv_pb2.PrefillReply:
        self._require(Role.PREFILL)
        spec = _seeded(self._spec(request))
        return await within(self._prefill(spec, context_of(context)), context_of(context))

    async def _prefill(self, spec: GenerateSpec, call: CallContext) -> kv_pb2.PrefillReply:
        async with self._running.slot():
            prompt = await asyncio.to_thread(self._generator.encode, spec)
            size = self._generator.engine.model.layout.token_bytes * len(prompt)
            with self._store.reserved(size):
                done = await prefill(self._generator, prompt, spec, call)
            # No other task runs in between.
            ticket = ""
            if done.snapshot is not None:
                ticket = self._store.put(done.snapshot, size, call.deadline_s)
            return self._reply(done, ticket, spec, len(prompt), size)

    def _reply(
        self, done: Prefilled, ticket: str, spec: GenerateSpec, prompt_tokens: int, size: int
    ) -> kv_pb2.PrefillReply:
        return kv_pb2.PrefillReply(
            ticket=ticket,
            token_ids=done.token_ids,
            text=done.text,
            finish_reason=done.finish or "",
            prompt_tokens=prompt_tokens,
            seed=spec.sampling.seed or 0,
            fingerprint=self._generator.engine.model.fingerprint,
            kv_bytes=size if ticket else 0,
            logprobs=logprobs_to_wire(done.logprobs),
        )

    async def PullKv(
        self, request: kv_pb2.PullKvRequest, context: _Context
    ) -> AsyncIterator[kv_pb2.KvPart]:
        self._require(Role.PREFILL)
        for part in to_parts(self._store.get(request.ticket), request.compression):
            yield part

    async def ReleaseKv(
        self, request: kv_pb2.ReleaseKvRequest, context: _Context
    ) -> kv_pb2.ReleaseKvReply:
        self._store.release(request.ticket)
        return kv_pb2.ReleaseKvReply()

    async def Decode(
        self, request: kv_pb2.DecodeRequest, context: _Context
    ) -> AsyncIterator[kv_pb2.DecodeEvent]:
        self._require(Role.DECODE)
        spec = self._spec(request.request)
        spec = replace(spec, sampling=replace(spec.sampling, seed=request.seed))
        if not request.source:
            raise InvalidInput("a decode needs a source", field="source")
        known = known_tokens(request.answers, spec.sampling, self._generator.engine)
        call = context_of(context)
        async with aclosing(
            events_within(self._decode(request, spec, known, call), call)
        ) as events:
            async for event in events:
                yield _to_wire(event)

    async def _decode(
        self,
        request: kv_pb2.DecodeRequest,
        spec: GenerateSpec,
        known: Mapping[int, Sequence[int]],
        call: CallContext,
    ) -> AsyncGenerator[Decoded | GenerateEnd, None]:
        async with self._running.slot() as queue_us:
            engine = self._generator.engine
            pull = partial(self._sources.pull, request.source, request.ticket, engine, call)
            async with aclosing(decode(self._generator, pull, spec, known, call)) as events:
                async for event in events:
                    if isinstance(event, GenerateEnd):
                        yield replace(event, queue_us=queue_us)
                    else:
                        yield event

    def _spec(self, request: llm_pb2.GenerateRequest) -> GenerateSpec:
        spec = generate_from_wire(request)
        check_generate(spec, self._options.limits)
        return spec

    def _require(self, role: Role) -> None:
        if role not in self._options.roles:
            raise IncompatibleRequest(
                f"LLM node {self._options.name!r} does not have the role {role}",
                field="role",
                hint=f"send the call to a node with it, or add {role} to this node's roles",
            )

    async def close(self) -> None:
        await self._sources.close()


def _seeded(spec: GenerateSpec) -> GenerateSpec:
    """With a seed, as another node will draw what follows."""
    if spec.sampling.seed is not None:
        return spec
    return replace(spec, sampling=replace(spec.sampling, seed=secrets.randbits(63)))


def _to_wire(event: Decoded | GenerateEnd) -> kv_pb2.DecodeEvent:
    if isinstance(event, GenerateEnd):
        return kv_pb2.DecodeEvent(done=done_to_wire(event))
    tokens = kv_pb2.DecodedTokens(
        token_ids=event.token_ids,
        text=event.text,
        logprobs=logprobs_to_wire(event.logprobs),
        index=event.index,
    )
    return kv_pb2.DecodeEvent(tokens=tokens)
