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

from llm_node.engine.config import EngineConfig
from llm_node.engine.engine import Engine
from llm_node.engine.request import Ended, EngineRequest, Finish, TokenOut
from llm_node.engine.worker import EngineWorker
from llm_node.generate.detokenise import Detokeniser
from llm_node.generate.prompt import PLAIN_STOPS, plain_prompt, templated_prompt
from llm_node.generate.stops import StopMatcher
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
    TokenPiece,
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
    return HfGenerator(directory, engine, load_chat_tokenizer(directory))


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
    """A Generator over one engine."""

    def __init__(self, directory: Path, engine: Engine, tokenizer: Any) -> None:
        self.engine = engine
        self._tokenizer = tokenizer
        self._borders = load_tokenizer(directory / "tokenizer.json")
        own = tokenizer.eos_token_id
        self._eos = engine.model.eos | (frozenset() if own is None else {int(own)})
        self._stops = () if tokenizer.chat_template else PLAIN_STOPS
        self._worker = EngineWorker(engine)
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
        """The engine's thread, for roles that speak tokens."""
        return self._worker

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        encodings = self._borders.encode_batch(list(texts), add_special_tokens=False)
        return [encoding_offsets(encoding) for encoding in encodings]

    async def start(self) -> None:
        """Starts the engine's thread."""
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
        if spec.sampling.n != 1:
            raise InvalidInput(
                f"{spec.sampling.n} answers do not fit into one stream",
                field="n",
                hint="send one request per answer; they share the prompt's KV",
            )
        prompt = await asyncio.to_thread(self.encode, spec)
        answer = self.answer(spec.sampling)
        first_us = 0
        async with aclosing(self._worker.stream(self.request(prompt, spec, context))) as events:
            async for event in events:
                if isinstance(event, TokenOut):
                    first_us = first_us or int((time.monotonic() - started_s) * 1e6)
                    answer.add(event.token_id)
                elif isinstance(event, Ended):
                    answer.end(finish_reason(event, context))
                if piece := answer.take():
                    yield piece
                if answer.finish is not None:
                    break
        total_us = int((time.monotonic() - started_s) * 1e6)
        yield GenerateEnd(answer.finish or "", len(prompt), answer.tokens, 0, first_us, total_us)

    def answer(self, sampling: Sampling) -> Answer:
        """An empty answer that tokens can be added to."""
        return Answer(self._tokenizer, sampling, self._eos, self._stops)

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


class Answer:
    """The text of one growing sequence, up to a stop string or its end.

    Attributes:
        tokens: generated so far.
        finish: ``stop`` or ``length`` once nothing more comes.
    """

    def __init__(
        self, tokenizer: Any, sampling: Sampling, eos: frozenset[int], stops: tuple[str, ...]
    ) -> None:
        self._text = Detokeniser(tokenizer)
        self._stops = StopMatcher((*sampling.stop, *stops))
        self._silent = (frozenset() if sampling.ignore_eos else eos) | set(sampling.stop_ids)
        self._ready = ""
        self._unsent = 0
        self.tokens = 0
        self.finish: str | None = None

    def add(self, token_id: int) -> None:
        """Takes a token; ids that end a sequence are no text."""
        self.tokens += 1
        self._unsent += 1
        if token_id not in self._silent:
            self._ready += self._stops.feed(self._text.add(token_id))
            self._stop()

    def end(self, finish: str) -> None:
        """Takes the engine's end, unless a stop string came first."""
        if self.finish is None:
            self._ready += self._stops.feed(self._text.flush()) + self._stops.flush()
            self.finish = finish
            self._stop()

    def _stop(self) -> None:
        if self._stops.stopped:
            self.finish = "stop"

    def take(self) -> TokenPiece | None:
        """Text that can be sent now, with the tokens since the last piece."""
        if not self._ready:
            return None
        piece = TokenPiece(self._ready, self._unsent)
        self._ready, self._unsent = "", 0
        return piece
