"""What one LLM node has loaded, and how it is brought up and down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from llm_node.config import LlmOptions
from llm_node.device.lanes import NodeDevices
from llm_node.device.scheduler import Lane
from llm_node.embed.scheduler import EmbedScheduler
from llm_node.engine.request import EngineStats
from llm_node.libraries import set_torch_threads
from llm_node.needs import api_key_of, check_generator, reranker_of
from llm_node.rerank.queue import RerankQueue
from llm_node.rewrite.rewriter import Rewriter
from llm_node.rewrite.template import load_template
from llm_node.roles import (
    Embedder,
    Generator,
    GeneratorDeps,
    Reranker,
    load_embedder,
    load_generator,
    load_reranker,
)
from ragschema.errors import IncompatibleRequest, InvalidInput
from ragschema.types import F32, I32, EmbedPurpose, ModelInfo, Role

if TYPE_CHECKING:
    from llm_node.generate.hf import HfGenerator
    from llm_node.index_scan.scanner import IndexScanner

#: Roles that a generator plays.
WRITERS = (Role.GENERATE, Role.PREFILL, Role.DECODE, Role.REWRITE)
#: The device of the embedder and the reranker.
_ENCODERS_ON: Final = "cpu"


@dataclass(frozen=True)
class EngineStatus:
    """An engine's counters, and the sizes that they are measured in."""

    stats: EngineStats
    block_tokens: int
    max_tokens: int


class LoadedNode:
    """The models behind the service; a role that was not asked for is None.

    Attributes:
        devices: whose time the roles share; to be started when all models are attached.
    """

    def __init__(self, options: LlmOptions, embedder: Embedder | None) -> None:
        self.options = options
        self._embedder = embedder
        self._generator: Generator | None = None
        self._rewriter: Rewriter | None = None
        self._scanner: IndexScanner | None = None
        self._reranker: Reranker | None = None
        self._reranks: RerankQueue | None = None
        self._scheduler: EmbedScheduler | None = None
        self.devices = NodeDevices(options.shares, options.threads, options.max_waiting)
        if embedder is not None:
            self._scheduler = EmbedScheduler(
                embedder,
                self.devices.lane(_ENCODERS_ON, Role.EMBED),
                options.max_waiting,
                options.limits.max_pending_embed_bytes,
            )

    def attach(self, generator: Generator) -> None:
        """Adds the generator, which may use this node's embedder."""
        self._generator = generator

    def attach_rewriter(self, rewriter: Rewriter) -> None:
        """Adds what turns questions into queries."""
        self._rewriter = rewriter

    @property
    def rewriter(self) -> Rewriter:
        """Raises IncompatibleRequest when the node does not rewrite."""
        if self._rewriter is None:
            raise self._lacks(Role.REWRITE)
        return self._rewriter

    def attach_scanner(self, scanner: IndexScanner) -> None:
        """Adds what finds the nearest lists."""
        self._scanner = scanner

    @property
    def scanner(self) -> IndexScanner:
        """Raises IncompatibleRequest when the node does not scan indexes."""
        if self._scanner is None:
            raise self._lacks(Role.INDEX_SCAN)
        return self._scanner

    def attach_reranker(self, reranker: Reranker) -> None:
        """Adds the reranker and its queue."""
        self._reranker = reranker
        self._reranks = RerankQueue(reranker, self.devices.lane(_ENCODERS_ON, Role.RERANK))

    @property
    def reranks(self) -> RerankQueue:
        """Raises IncompatibleRequest when the node does not rerank."""
        if self._reranks is None:
            raise self._lacks(Role.RERANK)
        return self._reranks

    @property
    def scheduler(self) -> EmbedScheduler:
        """Raises IncompatibleRequest when the node does not embed."""
        if self._scheduler is None:
            raise self._lacks(Role.EMBED)
        return self._scheduler

    def engine_lane(self) -> Lane | None:
        """One for all roles of the engine; None when the generator runs elsewhere."""
        if not self.options.generator.startswith("hf:"):
            return None
        played = [role for role in WRITERS if role in self.options.roles]
        return self.devices.lane(self.options.engine.device, *played)

    @property
    def has_engine(self) -> bool:
        """Whether the generator runs here and speaks tokens."""
        return self._generator is not None and self.options.generator.startswith("hf:")

    @property
    def generator(self) -> Generator:
        """Raises IncompatibleRequest when the node has none."""
        if self._generator is None:
            raise self._lacks(Role.GENERATE)
        return self._generator

    @property
    def generating(self) -> Generator:
        """Raises IncompatibleRequest when the node does not answer whole requests."""
        if Role.GENERATE not in self.options.roles:
            raise self._lacks(Role.GENERATE)
        return self.generator

    def token_offsets(self, role: Role, texts: Sequence[str]) -> list[I32]:
        """Token borders by the model of a role; blocks."""
        if role in WRITERS:
            return self.generator.token_offsets(texts)
        if role is not Role.EMBED or self._embedder is None:
            raise self._lacks(role)
        return self._embedder.token_offsets(texts)

    def models(self) -> list[ModelInfo]:
        found = [] if self._embedder is None else [self._embedder.info]
        if self._generator is not None:
            own = self._generator.info
            found += [replace(own, role=role) for role in WRITERS if role in self.options.roles]
        if self._reranker is not None:
            found.append(self._reranker.info)
        if self._scanner is not None:
            found.append(self._scanner.info)
        return found

    def encoding_load(self) -> tuple[int, int]:
        """Requests to embed, to rerank and to scan, running and waiting."""
        known = (self._reranks, self._scanner)
        queues: list[EmbedScheduler | Lane] = [q.lane for q in known if q is not None]
        queues += [] if self._scheduler is None else [self._scheduler]
        return (sum(queue.running for queue in queues), sum(queue.waiting for queue in queues))

    def engine_status(self) -> EngineStatus | None:
        """What the engine does now; None without one.

        Whole numbers read while its thread may be in a step: each is right, and they
        may come from two steps in a row.
        """
        if not self.has_engine:
            return None
        engine = cast("HfGenerator", self._generator).engine
        return EngineStatus(engine.stats(), engine.config.block_tokens, engine.max_tokens)

    def capabilities(self) -> list[str]:
        """Roles, and which implementation plays them."""
        found = ["tokenize"]
        if self._embedder is not None:
            found += ["embed", f"embedder:{self._embedder.info.name}"]
        if self._generator is not None:
            found += [role.value for role in WRITERS if role in self.options.roles]
            found += [f"generator:{self.options.generator.partition(':')[0]}"]
        if self._reranker is not None:
            found.append(Role.RERANK.value)
        if self._scanner is not None:
            found.append(Role.INDEX_SCAN.value)
        return found

    async def close(self) -> None:
        if self._generator is not None:
            await self._generator.close()
        if self._scheduler is not None:
            self._scheduler.close()
        await self.devices.close()

    def _lacks(self, role: Role) -> IncompatibleRequest:
        return IncompatibleRequest(
            f"LLM node {self.options.name!r} does not have the role {role}",
            field="role",
            hint=f"send the call to a node with it, or add {role} to this node's roles",
        )


async def load_node(options: LlmOptions) -> LoadedNode:
    """Loads every model of the options; returns when all are ready to work.

    Raises:
        InvalidInput, CorruptData: naming the option or file at fault.
    """
    key = api_key_of(options)
    if {Role.EMBED, Role.RERANK, Role.INDEX_SCAN} & set(
        options.roles
    ) or options.generator.startswith("hf:"):
        set_torch_threads(options.threads)
    embedder = None
    if Role.EMBED in options.roles:
        embedder = load_embedder(options.embedder, options.embedder_dtype)
    node = LoadedNode(options, embedder)
    if any(role in options.roles for role in WRITERS):
        check_generator(options)
        deps = GeneratorDeps(
            similarity=partial(_similarity, node.scheduler) if embedder else None,
            token_offsets=embedder.token_offsets if embedder else None,
            api_key=key,
            api_key_env=options.api_key_env,
            engine=options.engine,
            lane=node.engine_lane(),
        )
        generator = load_generator(options.generator, deps)
        await generator.start()
        node.attach(generator)
        if Role.REWRITE in options.roles:
            template = load_template(options.rewrite_template)
            node.attach_rewriter(Rewriter(generator, template, options.rewrite_tokens))
    if Role.RERANK in options.roles:
        node.attach_reranker(load_reranker(reranker_of(options)))
    if Role.INDEX_SCAN in options.roles:
        node.attach_scanner(_scanner_of(options, node.devices))
    node.devices.start()
    return node


def _scanner_of(options: LlmOptions, devices: NodeDevices) -> IndexScanner:
    if options.data_dir is None:
        raise InvalidInput(
            "the role index_scan has no collections",
            field="data",
            hint="name the rig's data directory with --data",
        )
    from llm_node.index_scan.scanner import IndexScanner

    device = options.engine.device
    return IndexScanner(options.data_dir, device, devices.lane(device, Role.INDEX_SCAN))


async def _similarity(scheduler: EmbedScheduler, question: str, sentences: Sequence[str]) -> F32:
    """Cosine of a question to each sentence; ahead of any ingestion."""
    asked, read = await asyncio.gather(
        scheduler.embed([question], EmbedPurpose.QUERY),
        scheduler.embed(sentences, EmbedPurpose.PASSAGE, urgent=True),
    )
    cosines: F32 = read.vectors @ asked.vectors[0]
    return cosines
