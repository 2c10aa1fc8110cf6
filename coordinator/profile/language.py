"""Probes of language models: embedding, reading prompts, writing, and moving KV."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from coordinator.load.prompts import Part, PartKind, text_of
from coordinator.nodes.clients import LlmClient
from coordinator.profile.plan import Grid, local_model
from coordinator.profile.probe import Call, Kind, Probe, Reading
from coordinator.profile.searching import CALL_S
from ragschema.errors import UpstreamError
from ragschema.rig import LlmNodeConfig
from ragschema.types import (
    CallContext,
    ChatMessage,
    EmbedPurpose,
    GenerateEnd,
    GenerateSpec,
    Passage,
    Role,
    Sampling,
)
from ragschema.wire import kv_pb2, llm_pb2
from ragschema.wire.convert import model_from_wire

#: What a model's time grows with: calls, sequences, tokens, and pairs of tokens in attention.
_READING: Final = ("1", "batch", "batch*tokens", "batch*tokens*tokens")
_TRIAL_TOKENS: Final = 32
_ASKED_WORDS: Final = 8
#: Marks around a question and a passage that are read together.
_PAIR_TOKENS: Final = 3
#: A text that is cut at a token may read as one more or less beside a template's tokens.
_CUT_TOKENS: Final = 3


@dataclass(frozen=True)
class LanguageNode:
    """One node to measure.

    Attributes:
        numbers: makes every text another one, so that no cache knows it.
        frame_tokens: that the model's chat template puts around a message.
    """

    client: LlmClient
    config: LlmNodeConfig
    models: Mapping[Role, str]
    numbers: Iterator[int]
    frame_tokens: int = 0

    def kind(
        self,
        role: str,
        model: Role,
        terms: tuple[str, ...],
        about: Mapping[str, str | float] | None = None,
    ) -> Kind:
        return Kind(role, self.models[model], self.config.threads, about or {}, terms)

    async def text(self, role: Role, tokens: int) -> str:
        """A text of so many tokens of the role's own tokenizer, never the same again."""
        text = text_of(Part(PartKind.HISTORY, next(self.numbers), tokens + 8))
        (borders,) = await self.client.tokenize(role, [text], CallContext.start(CALL_S))
        return text[: int(borders[min(tokens, len(borders)) - 1, 1])]


@dataclass(frozen=True)
class Writing:
    """An answer, and when its first token came and its last; not every token has text to show."""

    end: GenerateEnd
    began_s: float
    ended_s: float


async def language_node(client: LlmClient, config: LlmNodeConfig) -> LanguageNode:
    """Asks the node for its models."""
    status = await client.status(CallContext.start(CALL_S))
    models = {model.role: model.name for model in map(model_from_wire, status.models)}
    node = LanguageNode(client, config, models, itertools.count(1))
    if not local_model(config):
        return node
    end = await _end_of(client, await prompt_spec(node, _TRIAL_TOKENS, 1))
    return replace(node, frame_tokens=max(0, end.prompt_tokens - _TRIAL_TOKENS))


def embed_probe(node: LanguageNode, grid: Grid) -> Probe:
    """A call with ``batch`` texts of ``tokens`` tokens each, the model's own marks included."""

    def point(batch: int, tokens: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            texts = [await node.text(Role.EMBED, max(1, tokens - 2)) for _ in range(batch)]
            context = CallContext.start(CALL_S)
            started_s = time.perf_counter()
            done = await node.client.embed(texts, EmbedPurpose.QUERY, context)
            passed_s = time.perf_counter() - started_s
            at = {"batch": float(batch), "tokens": _told(done.tokens / batch, tokens)}
            return {"embed": Reading(at, passed_s)}

        return call

    points = tuple(point(*pair) for pair in grid.embed)
    return Probe((node.kind("embed", Role.EMBED, _READING),), points)


def generate_probe(node: LanguageNode, grid: Grid) -> Probe:
    """An answer that quotes passages: its time grows with what it has to look through."""

    def point(count: int, words: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            texts = [
                text_of(Part(PartKind.PASSAGE, next(node.numbers), words)) for _ in range(count)
            ]
            passages = tuple(Passage(n, f"{n}", text) for n, text in enumerate(texts, start=1))
            question = text_of(Part(PartKind.QUESTION, next(node.numbers), 12))
            spec = GenerateSpec((ChatMessage("user", question),), question, passages)
            started_s = time.perf_counter()
            await _end_of(node.client, spec)
            at = {"passages": float(count), "words": float(words)}
            return {"generate": Reading(at, time.perf_counter() - started_s)}

        return call

    points = tuple(point(*pair) for pair in grid.passages)
    terms = ("1", "passages", "passages*words")
    return Probe((node.kind("generate", Role.GENERATE, terms),), points)


def rerank_probe(node: LanguageNode, grid: Grid) -> Probe:
    """A call that scores ``batch`` passages of ``tokens`` tokens each, the question included."""

    def point(count: int, tokens: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            question = text_of(Part(PartKind.QUESTION, next(node.numbers), _ASKED_WORDS))
            words = max(1, tokens - _ASKED_WORDS - _PAIR_TOKENS)
            texts = [
                text_of(Part(PartKind.PASSAGE, next(node.numbers), words)) for _ in range(count)
            ]
            request = llm_pb2.RerankRequest(query=question, texts=texts)
            started_s = time.perf_counter()
            done = await node.client.call(
                node.client.stub.Rerank, request, CallContext.start(CALL_S)
            )
            passed_s = time.perf_counter() - started_s
            at = {"batch": float(count), "tokens": _told(done.tokens / count, tokens)}
            return {"rerank": Reading(at, passed_s)}

        return call

    points = tuple(point(*pair) for pair in grid.rerank)
    return Probe((node.kind("rerank", Role.RERANK, _READING),), points)


def prefill_probe(node: LanguageNode, grid: Grid) -> Probe:
    """``batch`` prompts that come together, until the last of them has its first token."""

    def point(batch: int, tokens: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            specs = [await prompt_spec(node, tokens, 1) for _ in range(batch)]
            started_s = time.perf_counter()
            ends = await asyncio.gather(*(_end_of(node.client, spec) for spec in specs))
            passed_s = time.perf_counter() - started_s
            return {"prefill": Reading(sizes_of(ends, tokens), passed_s)}

        return call

    points = tuple(point(*pair) for pair in fitting(grid.prefill, node))
    return Probe((node.kind("prefill", Role.GENERATE, _READING),), points)


def kv_probe(node: LanguageNode, grid: Grid) -> Probe:
    """A prompt's keys and values from the prefill node to here, as a decode node pulls them."""

    def point(tokens: int) -> Call:
        async def call() -> Mapping[str, Reading]:
            context = CallContext.start(CALL_S)
            read = await node.client.prefill(await prompt_spec(node, tokens, 4), context)
            if not read.ticket:
                raise UpstreamError("the first token ended the answer; there is no KV to pull")
            started_s = time.perf_counter()
            pulled, held = await _pulled(node.client, read.ticket, context)
            passed_s = time.perf_counter() - started_s
            await node.client.release_kv(read.ticket, context)
            size = float(round(pulled / held * _told(held, tokens)))
            return {"kv_transfer": Reading({"bytes": size}, passed_s)}

        return call

    points = tuple(point(tokens) for tokens in grid.kv_tokens)
    return Probe((node.kind("kv_transfer", Role.PREFILL, ("1", "bytes")),), points)


def fitting(pairs: Sequence[tuple[int, int]], node: LanguageNode) -> list[tuple[int, int]]:
    """Without batches that the node would not run together."""
    return [(batch, tokens) for batch, tokens in pairs if batch <= node.config.max_running]


def sizes_of(ends: Sequence[GenerateEnd], wanted: int) -> dict[str, float]:
    tokens = sum(end.prompt_tokens for end in ends) / len(ends)
    return {"batch": float(len(ends)), "tokens": _told(tokens, wanted)}


def _told(tokens: float, wanted: int) -> float:
    """Tokens that were read; the wanted number where only the cut of a text is between them.

    So repeats, and later runs, are of the same point.
    """
    return float(wanted if abs(tokens - wanted) <= _CUT_TOKENS else round(tokens))


async def prompt_spec(node: LanguageNode, tokens: int, output: int) -> GenerateSpec:
    """Of so many tokens, the chat template's included."""
    text = await node.text(Role.GENERATE, max(1, tokens - node.frame_tokens))
    # Greedy, and never ended by the model: the same work for every repeat.
    sampling = Sampling(max_tokens=output, min_tokens=output, ignore_eos=True)
    return GenerateSpec((ChatMessage("user", text),), text, (), sampling)


async def _end_of(client: LlmClient, spec: GenerateSpec) -> GenerateEnd:
    return (await written(client, spec)).end


async def written(client: LlmClient, spec: GenerateSpec) -> Writing:
    end: GenerateEnd | None = None
    async with aclosing(client.generate(spec, CallContext.start(CALL_S))) as events:
        async for event in events:
            if isinstance(event, GenerateEnd):
                end = event
    if end is None:
        raise UpstreamError("the node ended its answer without saying why")
    ended_s = time.perf_counter()
    return Writing(end, ended_s - (end.total_us - end.first_token_us) / 1e6, ended_s)


async def _pulled(client: LlmClient, ticket: str, context: CallContext) -> tuple[int, int]:
    """Bytes of keys and values that came, and tokens that they stand for."""
    request = kv_pb2.PullKvRequest(ticket=ticket)
    size = held = 0
    parts = cast("Any", client.stream(client.kv.PullKv, request, context))
    async with aclosing(parts) as stream:
        async for part in stream:
            if part.WhichOneof("part") == "header":
                held = part.header.computed
            else:
                size += len(part.slice.data)
    if not size or not held:
        raise UpstreamError("the node holds no KV of the prompt")
    return size, held
