"""The roles an LLM node may play, and the registry of who plays them.

A real engine replaces a generator here by implementing ``Generator`` and adding
one row to the table. Implementations are imported only when they are chosen, so
that a node without torch can still serve the extractive generator.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from llm_node.config import EmbedDtype
from llm_node.device.scheduler import Lane
from llm_node.engine.config import EngineConfig
from ragschema.errors import InvalidInput
from ragschema.types import (
    F32,
    I32,
    CallContext,
    EmbedPurpose,
    GenerateEvent,
    GenerateSpec,
    ModelInfo,
)

#: float32 [len(sentences)], cosine of a question to each sentence.
Similarity = Callable[[str, Sequence[str]], Awaitable[F32]]
#: int32 [tokens, 2] per text: start and end in characters.
TokenOffsets = Callable[[Sequence[str]], list[I32]]


@dataclass(frozen=True)
class TokenizedText:
    """A text ready for a forward pass.

    Attributes:
        ids: token ids with special tokens, at most the model's maximum.
        truncated: the text was longer, and only its head is in ``ids``.
    """

    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class TokenizedPair(TokenizedText):
    """A query and a text in one; ``types`` tell which token is whose."""

    types: tuple[int, ...]


class Reranker(Protocol):
    """Scores texts for a query. Methods block; call them in the device's thread."""

    @property
    def info(self) -> ModelInfo: ...

    def encode(self, query: str, texts: Sequence[str]) -> list[TokenizedPair]:
        """One pair per text, as the model reads it."""
        ...

    def forward(self, batch: Sequence[TokenizedPair]) -> F32:
        """float32 [len(batch)], higher for what answers better."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors. Methods block; call them in the device's thread."""

    @property
    def info(self) -> ModelInfo: ...

    def encode(self, texts: Sequence[str], purpose: EmbedPurpose) -> list[TokenizedText]:
        """Tokens as the model reads them, with the prompt of ``purpose``."""
        ...

    def forward(self, batch: Sequence[TokenizedText]) -> F32:
        """float32 [len(batch), dim], unit length."""
        ...

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        """int32 [tokens, 2] per text, characters, without special tokens."""
        ...


class Generator(Protocol):
    """Answers a GenerateSpec as a stream of pieces and one end."""

    @property
    def info(self) -> ModelInfo: ...

    def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """TokenPiece events, then exactly one GenerateEnd.

        Closing the iterator frees everything the request held.
        """
        ...

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        """int32 [tokens, 2] per text, characters, without special tokens."""
        ...

    async def start(self) -> None:
        """Called once, in the running event loop, before the node serves."""
        ...

    async def close(self) -> None:
        """Called once, after the last request."""
        ...


@dataclass(frozen=True)
class GeneratorDeps:
    """What a node offers to the generator it builds.

    Attributes:
        similarity: cosine through the node's own embedder, None without one.
        token_offsets: the embedder's tokenizer, None without one.
        api_key: for an upstream server; never logged.
        api_key_env: the variable the key came from, for messages.
        engine: of a generator that runs here, None for the defaults.
        lane: of such a generator on its device; None: it has a device of its own.
    """

    similarity: Similarity | None = None
    token_offsets: TokenOffsets | None = None
    api_key: str | None = None
    api_key_env: str | None = None
    engine: EngineConfig | None = None
    lane: Lane | None = None


_GENERATORS: tuple[tuple[str, str], ...] = (
    ("extractive", "llm_node.generate.extractive"),
    ("hf", "llm_node.generate.hf"),
    ("openai", "llm_node.generate.upstream"),
)


def load_embedder(reference: str, dtype: EmbedDtype = EmbedDtype.FLOAT32) -> Embedder:
    """Loads ``minilm`` or a directory; blocks until the weights are in memory.

    Args:
        dtype: of weights and layers.

    Raises:
        InvalidInput, CorruptData: naming the file that is missing or broken.
    """
    module = importlib.import_module("llm_node.embed.encoder")
    return cast(Embedder, module.load(reference, dtype))


def load_reranker(reference: str) -> Reranker:
    """Loads a cross-encoder's directory; blocks until the weights are in memory.

    Raises:
        InvalidInput, CorruptData: naming the file that is missing or broken.
    """
    module = importlib.import_module("llm_node.rerank.cross_encoder")
    return cast(Reranker, module.load(reference))


def load_generator(reference: str, deps: GeneratorDeps) -> Generator:
    """Loads the generator a reference such as ``hf:DIR`` names; blocks.

    Raises:
        InvalidInput, CorruptData: naming what is wrong with the reference.
    """
    scheme, _, rest = reference.partition(":")
    for name, module_name in _GENERATORS:
        if scheme == name:
            module = importlib.import_module(module_name)
            return cast(Generator, module.load(rest, deps))
    raise InvalidInput(
        f"{reference!r} is no generator",
        field="generator",
        hint="use extractive, hf:DIR or openai:URL[#MODEL]",
    )
