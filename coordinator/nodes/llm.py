"""An LLM node under watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from typing import ClassVar

from coordinator.metrics import Metrics
from coordinator.nodes.clients import Embedded, LlmClient
from coordinator.nodes.conversation import Found
from coordinator.nodes.device_work import device_details
from coordinator.nodes.engine_work import engine_detail
from coordinator.nodes.health import NodeKind
from coordinator.nodes.watched import WatchConfig, WatchedNode
from ragschema.errors import RagrigError
from ragschema.rig import LlmNodeConfig
from ragschema.storage.manifest import FileRef
from ragschema.types import (
    F32,
    I32,
    CallContext,
    EmbedPurpose,
    GenerateEvent,
    GenerateSpec,
    ModelInfo,
    Role,
)
from ragschema.wire.augment_pb2 import AugmentStart
from ragschema.wire.convert import model_from_wire
from ragschema.wire.kv_pb2 import DecodeEvent, DecodeRequest, PrefillReply
from ragschema.wire.llm_pb2 import RewriteReply, RewriteRequest


class LlmNode(WatchedNode[LlmClient]):
    """Knows the models the node has loaded."""

    kind: ClassVar[NodeKind] = "llm"

    def __init__(
        self, config: LlmNodeConfig, address: str, metrics: Metrics, watch: WatchConfig
    ) -> None:
        self.models: tuple[ModelInfo, ...] = ()
        super().__init__(config.name, address, config.roles, metrics, watch)

    def model(self, role: Role) -> ModelInfo | None:
        """The model of that role; None when the node has none."""
        return next((m for m in self.models if m.role is role), None)

    @property
    def reader(self) -> ModelInfo | None:
        """The model that reads prompts here."""
        return self.model(Role.GENERATE) or self.model(Role.PREFILL)

    async def embed(
        self, texts: Sequence[str], purpose: EmbedPurpose, context: CallContext
    ) -> Embedded:
        with self._call():
            return await self.client.embed(texts, purpose, context)

    async def tokenize(
        self, role: Role, texts: Sequence[str], context: CallContext
    ) -> tuple[I32, ...]:
        with self._call():
            return await self.client.tokenize(role, texts, context)

    async def rerank(self, query: str, texts: Sequence[str], context: CallContext) -> F32:
        with self._call():
            return await self.client.rerank(query, texts, context)

    async def rewrite(self, request: RewriteRequest, context: CallContext) -> RewriteReply:
        with self._call():
            return await self.client.rewrite(request, context)

    async def index_scan(
        self, collection: str, index: FileRef, queries: F32, nprobe: int, context: CallContext
    ) -> I32:
        with self._call():
            return await self.client.index_scan(collection, index, queries, nprobe, context)

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent]:
        with self._call():
            async with aclosing(self.client.generate(spec, context)) as events:
                async for event in events:
                    yield event

    async def augment(
        self, start: AugmentStart, found: Found, context: CallContext
    ) -> AsyncGenerator[GenerateEvent]:
        with self._call():
            async with aclosing(self.client.augment(start, found, context)) as events:
                async for event in events:
                    yield event

    async def prefill(self, spec: GenerateSpec, context: CallContext) -> PrefillReply:
        with self._call():
            return await self.client.prefill(spec, context)

    async def decode(
        self, request: DecodeRequest, context: CallContext
    ) -> AsyncGenerator[DecodeEvent]:
        with self._call():
            async with aclosing(self.client.decode(request, context)) as events:
                async for event in events:
                    yield event

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Counts a call and notes its failure."""
        self.inflight += 1
        try:
            yield
        except RagrigError as error:
            self.failed(error)
            raise
        finally:
            self.inflight -= 1

    def _connect(self) -> LlmClient:
        return LlmClient(self.name, self.address)

    async def _inspect(self, restarted: bool, context: CallContext) -> Mapping[str, object]:
        reply = await self.client.status(context)
        self.models = tuple(model_from_wire(m) for m in reply.models)
        engine: Mapping[str, object] | None = None
        if reply.HasField("engine"):
            self._metrics.engine_work.told(self.name, reply.engine)
            engine = engine_detail(reply.engine)
        self._metrics.device_work.told(self.name, reply.devices)
        return {
            "models": [{**asdict(m), "role": m.role.value} for m in self.models],
            "running": reply.running,
            "waiting": reply.waiting,
            "requests_total": reply.requests_total,
            "cancelled_total": reply.cancelled_total,
            "tokens_total": reply.tokens_total,
            "uptime_s": reply.uptime_s,
            "engine": engine,
            "devices": device_details(reply.devices),
        }
