"""Any local causal language model in the transformers format, on our engine.

Text goes in and comes out here; tokens are the engine's affair.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from llm_node.device.scheduler import Lane
from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.request import Ended, EngineRequest, Finish, Paused, TokenOut
from llm_node.engine.worker import EngineWorker
from llm_node.generate.answer import Answer
from llm_node.generate.prompt import PLAIN_STOPS, plain_prompt, templated_prompt
from llm_node.generate.token_texts import TokenTexts
from llm_node.libraries import first_line
from llm_node.roles import GeneratorDeps
from llm_node.tokens import encoding_offsets, load_tokenizer
from ragschema.errors import (
    Cancelled,
    CorruptData,
    IncompatibleRequest,
    InternalError,
    InvalidInput,
    PayloadTooLarge,
)
from ragschema.types import (
    I32,
    CallContext,
    GenerateEnd,
    GenerateEvent,
    GenerateSpec,
    ModelInfo,
    Role,
    Sampling,
    TokenLogprob,
)

_FIELD = "generator"


def load(rest: str, deps: GeneratorDeps) -> HfGenerator:
    """Loads the checkpoint directory ``rest`` and runs it once.

    Raises:
        InvalidInput, CorruptData: naming the file at fault.
    """
    if not rest:
        raise InvalidInput("hf: names no directory", field=_FIELD, hint="write hf:DIR")
    directory = Path(rest).expanduser().absolute()
    engine = Engine.load(directory, deps.engine or EngineConfig())
    _warm_up(engine)
    return HfGenerator(directory, engine, load_chat_tokenizer(directory), deps.lane)


def load_chat_tokenizer(directory: Path) -> Any:
    """The checkpoint's tokenizer with its chat template; CorruptData names the file."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # a loader may raise anything on a foreign file
        path = directory / "tokenizer.json"
        raise CorruptData(f"cannot load {path}: {first_line(error)}", field=_FIELD) from error


def _warm_up(engine: Engine) -> None:
    """Two tokens, so that a model the engine cannot drive fails at start-up."""
    engine.add(EngineRequest("warm-up", (0,), Sampling(max_tokens=2)))
    try:
        while engine.has_work:
            engine.step()
    except Exception as error:  # foreign code, foreign shapes
        raise InvalidInput(
            f"{type(engine.model.module).__name__} cannot be decoded here: {first_line(error)}",
            field=_FIELD,
            hint="use a decoder-only model with a KV cache, or a server through openai:URL",
        ) from error


class HfGenerator:
    """A Generator over one engine, whose steps are turns of a lane."""

    def __init__(
        self, directory: Path, engine: Engine, tokenizer: Any, lane: Lane | None = None
    ) -> None:
        self.engine = engine
        self._tokenizer = tokenizer
        self._borders = load_tokenizer(directory / "tokenizer.json")
        own = tokenizer.eos_token_id
        self._eos = engine.model.eos | (frozenset() if own is None else {int(own)})
        self._stops = () if tokenizer.chat_template else PLAIN_STOPS
        self._texts = TokenTexts(tokenizer)
        self._worker = EngineWorker(engine, lane=lane)
        self._numbers = itertools.count()
        self._info = ModelInfo(
            role=Role.GENERATE,
            name=f"hf:{directory.name}",
            fingerprint=engine.model.fingerprint,
            dim=None,
            max_input_tokens=engine.max_tokens,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def worker(self) -> EngineWorker:
        """The engine's turns, for roles that speak tokens."""
        return self._worker

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        encodings = self._borders.encode_batch(list(texts), add_special_tokens=False)
        return [encoding_offsets(encoding) for encoding in encodings]

    async def start(self) -> None:
        """Lets the engine have turns."""
        await self._worker.start()

    async def close(self) -> None:
        """Stops after the running step."""
        await self._worker.close()

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Streams token by token; a closed iterator frees its blocks at once.

        Raises:
            PayloadTooLarge: the prompt does not fit the model's context.
            InvalidInput: the chat template refuses the turns.
            DeadlineExceeded: the context's deadline passed.
        """
        started_s = time.monotonic()
        context.remaining_s()
        prompt = await asyncio.to_thread(self.encode, spec)
        request = self.request(prompt, spec, context)
        answers = [self.answer(spec.sampling, index) for index in range(spec.sampling.n)]
        first_us, left = 0, len(answers)
        async with aclosing(self._worker.stream(request)) as events:
            async for event in events:
                assert not isinstance(event, Paused), "plain requests do not pause"
                answer = answers[event.index]
                if answer.finish is not None:
                    continue  # what the engine did before it heard of the stop string
                if isinstance(event, TokenOut):
                    first_us = first_us or int((time.monotonic() - started_s) * 1e6)
                    answer.add(event.token_id, self.logprob_of(event))
                else:
                    answer.end(finish_reason(event, context))
                if piece := answer.take():
                    yield piece
                if answer.finish is None:
                    continue
                total_us = int((time.monotonic() - started_s) * 1e6)
                yield GenerateEnd(
                    answer.finish, len(prompt), answer.tokens, 0, first_us, total_us, event.index
                )
                left -= 1
                if not left:
                    break
                await self._worker.cancel(request.request_id, event.index)

    def answer(self, sampling: Sampling, index: int = 0) -> Answer:
        """An empty answer that tokens can be added to."""
        return Answer(self._tokenizer, sampling, self._eos, self._stops, index)

    def logprob_of(self, token: TokenOut) -> TokenLogprob | None:
        """What is told of a token's probability; None when nothing was asked for."""
        if token.logprob is None:
            return None
        top = tuple(self._texts.chance(token_id, logprob) for token_id, logprob in token.top)
        return TokenLogprob(self._texts.chance(token.token_id, token.logprob), top)

    def request(
        self, prompt: Sequence[int], spec: GenerateSpec, context: CallContext
    ) -> EngineRequest:
        """What the engine is asked; the id is new."""
        return EngineRequest(
            request_id=f"{context.trace_id}-{next(self._numbers)}",
            prompt_ids=tuple(prompt),
            sampling=spec.sampling,
            eos=self._eos,
            deadline_s=context.deadline_s,
            seed=spec.sampling.seed,
        )

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a text in the middle of others; blocks."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def document_ids(self, text: str) -> list[int]:
        """Token ids of a text on its own, with what the tokenizer puts around it; blocks."""
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def single_token(self, text: str) -> int:
        """The id of a text that is one token.

        Raises:
            InvalidInput: it is several, or none.
        """
        ids = self.ids_of(text)
        if len(ids) != 1:
            raise InvalidInput(
                f"{text!r} is {len(ids)} tokens of {self._info.name}",
                field="triggers",
                hint="use texts that are a single token",
            )
        return ids[0]

    def encode(self, spec: GenerateSpec) -> list[int]:
        """Token ids of the turns as the model was trained to read them; blocks.

        Raises:
            PayloadTooLarge, InvalidInput, IncompatibleRequest: see ``generate``.
        """
        if not spec.messages:
            raise InvalidInput("there are no messages", field="messages", hint="send one turn")
        templated = bool(self._tokenizer.chat_template)
        if templated:
            text = templated_prompt(self._tokenizer, spec.messages)
        else:
            text = plain_prompt(spec.messages)
        # A template writes its own special tokens.
        ids: list[int] = self._tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if len(ids) >= self.engine.max_tokens:
            raise PayloadTooLarge(
                f"the prompt has {len(ids)} tokens, {self._info.name} reads"
                f" {self.engine.max_tokens} and needs one for its answer",
                field="messages",
                hint="send fewer or shorter passages",
            )
        if not ids or max(ids) >= self.engine.model.vocabulary:
            raise IncompatibleRequest(
                f"the tokenizer of {self._info.name} gave ids its weights do not know",
                field="messages",
                hint="tokenizer and weights of the checkpoint do not belong together",
            )
        return ids


def finish_reason(ended: Ended, context: CallContext) -> str:
    """``stop`` or ``length``; raises what any other end stands for."""
    if ended.finish in (Finish.STOP, Finish.LENGTH):
        return ended.finish.value
    if ended.finish is Finish.DEADLINE:
        context.remaining_s()
    if ended.finish is Finish.ERROR:
        raise InternalError(ended.message)
    raise Cancelled(f"the request ended: {ended.finish}")
