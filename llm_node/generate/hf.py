"""Any local causal language model in the transformers format, streamed.

This generator is plain on purpose: one forward pass per token and sequence, on
the CPU, in one worker thread in which the running sequences take turns.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llm_node.checkpoint import Checkpoint, fingerprint, inspect_checkpoint
from llm_node.generate.decode import DecodeLoop
from llm_node.generate.prompt import PLAIN_STOPS, plain_prompt, templated_prompt
from llm_node.libraries import first_line, quiet_transformers
from llm_node.roles import GeneratorDeps
from llm_node.tokens import encoding_offsets, load_tokenizer
from ragschema.errors import CorruptData, IncompatibleRequest, InvalidInput, PayloadTooLarge
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
    del deps
    if not rest:
        raise InvalidInput("hf: names no directory", field=_FIELD, hint="write hf:DIR")
    checkpoint = inspect_checkpoint(Path(rest).expanduser().absolute(), _FIELD)
    generator = HfGenerator(checkpoint, _load_model(checkpoint), _load_chat_tokenizer(checkpoint))
    generator.warm_up()
    return generator


def _load_model(checkpoint: Checkpoint) -> Any:
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    quiet_transformers()
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            str(checkpoint.directory),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype="auto",
            output_loading_info=True,
        )
    except Exception as error:  # a loader may raise anything on a foreign file
        raise InvalidInput(
            f"cannot load {checkpoint.directory}: {first_line(error)}", field=_FIELD
        ) from error
    lost = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if lost:
        raise CorruptData(
            f"{checkpoint.weights[0]} lacks {lost[0]} ({len(lost)} weights in all)",
            field=_FIELD,
            hint="the weights do not belong to this config.json",
        )
    return model.eval()


def _load_chat_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(checkpoint.directory), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # a loader may raise anything on a foreign file
        path = checkpoint.directory / "tokenizer.json"
        raise CorruptData(f"cannot load {path}: {first_line(error)}", field=_FIELD) from error


def _ids(value: Any) -> list[int]:
    """An end-of-sequence setting is absent, a number or a list of them."""
    if value is None:
        return []
    return [int(x) for x in value] if isinstance(value, list | tuple) else [int(value)]


class HfGenerator:
    """A Generator over one transformers model."""

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._borders = load_tokenizer(checkpoint.directory / "tokenizer.json")
        text_config = model.config.get_text_config()
        self._context: int | None = getattr(text_config, "max_position_embeddings", None)
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)
        self._eos = frozenset(
            _ids(getattr(model.generation_config, "eos_token_id", None))
            + _ids(getattr(text_config, "eos_token_id", None))
            + _ids(tokenizer.eos_token_id)
        )
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._info = ModelInfo(
            role=Role.GENERATE,
            name=f"hf:{checkpoint.directory.name}",
            fingerprint=fingerprint(checkpoint),
            dim=None,
            max_input_tokens=self._context,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def warm_up(self) -> None:
        """Two steps, so that a model this loop cannot drive fails at start-up.

        Raises:
            InvalidInput: naming the model's class.
        """
        kind = type(self._model).__name__
        hint = "use a decoder-only model with a KV cache, or a server through openai:URL"
        if "logits_to_keep" not in inspect.signature(self._model.forward).parameters:
            raise InvalidInput(f"{kind} cannot be decoded here", field=_FIELD, hint=hint)
        try:
            loop = DecodeLoop(
                self._model, self._tokenizer, [0], 2, frozenset(), Sampling(max_tokens=2)
            )
            loop.step()
            loop.step()
        except Exception as error:  # foreign code, foreign shapes
            message = f"{kind} cannot be decoded here: {first_line(error)}"
            raise InvalidInput(message, field=_FIELD, hint=hint) from error

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        encodings = self._borders.encode_batch(list(texts), add_special_tokens=False)
        return [encoding_offsets(encoding) for encoding in encodings]

    async def start(self) -> None:
        """Everything was loaded before."""

    async def close(self) -> None:
        """Stops after the running step."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Streams token by token; a closed iterator stops within one step.

        Every step is a job of its own for the worker thread: nothing is computed
        ahead of the reader, and sequences take turns.

        Raises:
            PayloadTooLarge: the prompt does not fit the model's context.
            InvalidInput: the chat template refuses the turns.
        """
        started_s = time.monotonic()
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._worker, self._encode, spec)
        decoding = self._start(prompt, spec)
        first_us = unsent = 0
        while True:
            context.remaining_s()
            step = await loop.run_in_executor(self._worker, decoding.step)
            if step.tokens and not first_us:
                first_us = int((time.monotonic() - started_s) * 1e6)
            unsent += step.tokens
            if step.text:
                yield TokenPiece(step.text, unsent)
                unsent = 0
            if step.finish is not None:
                break
        total_us = int((time.monotonic() - started_s) * 1e6)
        yield GenerateEnd(step.finish, len(prompt), decoding.generated, 0, first_us, total_us)

    def _start(self, prompt: list[int], spec: GenerateSpec) -> DecodeLoop:
        limit = spec.sampling.max_tokens
        if self._context is not None:
            limit = min(limit, self._context - len(prompt))
        return DecodeLoop(
            self._model,
            self._tokenizer,
            prompt,
            limit,
            self._eos,
            spec.sampling,
            () if self._tokenizer.chat_template else PLAIN_STOPS,
        )

    def _encode(self, spec: GenerateSpec) -> list[int]:
        if not spec.messages:
            raise InvalidInput("there are no messages", field="messages", hint="send one turn")
        templated = bool(self._tokenizer.chat_template)
        if templated:
            text = templated_prompt(self._tokenizer, spec.messages)
        else:
            text = plain_prompt(spec.messages)
        # A template writes its own special tokens.
        ids: list[int] = self._tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if self._context is not None and len(ids) >= self._context:
            raise PayloadTooLarge(
                f"the prompt has {len(ids)} tokens, {self._info.name} reads {self._context}"
                " and needs one for its answer",
                field="messages",
                hint="send fewer or shorter passages",
            )
        if not ids or max(ids) >= self._vocabulary:
            raise IncompatibleRequest(
                f"the tokenizer of {self._info.name} gave ids its weights do not know",
                field="messages",
                hint="tokenizer and weights of the checkpoint do not belong together",
            )
        return ids
