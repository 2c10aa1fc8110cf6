"""A generator that forwards to any OpenAI-compatible server, streamed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from llm_node.generate.sse import Pairs, read_events
from llm_node.generate.support import require_supported
from llm_node.generate.upstream_errors import (
    error_in_stream,
    error_of_status,
    error_of_transport,
    quote_value,
)
from llm_node.roles import GeneratorDeps
from llm_node.tokens import word_offsets
from ragschema.errors import InvalidInput, RagrigError, UpstreamError
from ragschema.types import (
    I32,
    CallContext,
    GenerateEnd,
    GenerateEvent,
    GenerateSpec,
    ModelInfo,
    Role,
    TokenPiece,
)

log = logging.getLogger(__name__)

_MAX_ERROR_BODY_BYTES = 16 << 10
_MAX_MODELS_BYTES = 4 << 20
#: Options of OpenAI's API beyond those that are always told.
_PASSED_ON = ("presence_penalty", "frequency_penalty")
_FINISH = {"length": "length", "max_tokens": "length"}


@dataclass(frozen=True)
class UpstreamConfig:
    """Where the server is and how patient to be.

    Attributes:
        base_url: with its path, such as ``http://host:8000/v1``, no credentials.
        model: None asks the server for its first one.
        api_key: sent as a bearer token, never logged.
        read_s: longest silence, before the first token too.
    """

    base_url: str
    model: str | None = None
    api_key: str | None = None
    api_key_env: str | None = None
    connect_s: float = 5.0
    read_s: float = 120.0
    discover_s: float = 3.0


def load(rest: str, deps: GeneratorDeps) -> UpstreamGenerator:
    """Builds the generator for ``URL[#MODEL]``; the server need not run yet.

    Raises:
        InvalidInput: the URL cannot be used.
    """
    return UpstreamGenerator(parse_reference(rest, deps))


def parse_reference(rest: str, deps: GeneratorDeps) -> UpstreamConfig:
    """Reads ``URL[#MODEL]``; a URL without a path gets ``/v1``."""
    url, _, model = rest.partition("#")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, valid = SplitResult("", "", "", "", ""), False
    if not valid:
        raise InvalidInput(
            f"{url!r} is no http or https URL",
            field="generator",
            hint="write openai:http://HOST:PORT/v1#MODEL",
        )
    if parts.username or parts.password or parts.query:
        raise InvalidInput(
            f"the URL of {parts.hostname} holds credentials or a query",
            field="generator",
            hint="put the key into an environment variable and name it with --api-key-env",
        )
    path = parts.path.rstrip("/") or "/v1"
    return UpstreamConfig(
        base_url=urlunsplit((parts.scheme, parts.netloc, path, "", "")),
        model=model or None,
        api_key=deps.api_key,
        api_key_env=deps.api_key_env,
    )


class UpstreamGenerator:
    """A Generator on another server. Its tokens are counted by that server."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._model = config.model
        self._server = f"the server at {config.base_url}"
        key_hint = f"environment variable {config.api_key_env}" if config.api_key_env else None
        self._key_hint = key_hint or "set one with --api-key-env"
        # Uncompressed, so that the bounds on what is read hold for what was sent.
        headers = {"Accept-Encoding": "identity"}
        if config.api_key:
            headers["Authorization"] = f"Bearer {config.api_key}"
        host = urlsplit(config.base_url).hostname
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(config.read_s, connect=config.connect_s),
            limits=httpx.Limits(max_connections=1024, max_keepalive_connections=32),
            follow_redirects=False,
            # A proxy of the environment cannot reach this machine's own servers.
            trust_env=host not in ("127.0.0.1", "localhost", "::1"),
        )

    @property
    def info(self) -> ModelInfo:
        identity = f"{self._config.base_url}#{self._model or ''}"
        mark = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
        name = f"openai:{self._model or self._config.base_url}"
        return ModelInfo(Role.GENERATE, name, mark, None, None)

    def token_offsets(self, texts: Sequence[str]) -> list[I32]:
        """An estimate: the server's tokenizer is not at hand."""
        return word_offsets(texts)

    async def close(self) -> None:
        await self._client.aclose()

    async def start(self) -> None:
        """Learns the model's name if the server is up; else the first request does."""
        try:
            async with asyncio.timeout(self._config.discover_s):
                log.info("%s serves %s", self._server, await self._model_name())
        except (RagrigError, TimeoutError) as error:
            log.warning("%s does not answer yet: %s", self._server, error or "timed out")

    async def _model_name(self) -> str:
        if self._model is None:
            body = await self._get_models()
            entries = body.get("data") if isinstance(body, dict) else None
            listed = entries if isinstance(entries, list) else []
            names = [e.get("id") for e in listed if isinstance(e, dict)]
            if not names or not _is_name(names[0]):
                raise UpstreamError(
                    f"{self._server} lists no model: {quote_value(body)}",
                    hint="name one: openai:URL#MODEL",
                )
            if len(names) > 1:
                log.warning("%s serves %d models, using %s", self._server, len(names), names[0])
            self._model = names[0]
        return self._model

    async def _get_models(self) -> Any:
        try:
            async with self._client.stream("GET", f"{self._config.base_url}/models") as reply:
                body = await _read_head(reply, _MAX_MODELS_BYTES)
                if reply.status_code != 200:
                    raise error_of_status(reply, body, self._server, self._key_hint)
                return json.loads(body)
        except httpx.HTTPError as error:
            raise error_of_transport(error, self._server, self._config.read_s) from error
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{self._server} lists its models in no JSON") from error

    async def generate(
        self, spec: GenerateSpec, context: CallContext
    ) -> AsyncGenerator[GenerateEvent, None]:
        """Streams the server's answer; a closed iterator closes its connection.

        Raises:
            IncompatibleRequest: an option is set that OpenAI's API does not have.
            Unavailable, DeadlineExceeded, Overloaded, PayloadTooLarge, UpstreamError:
                what the server's failure means, with its own words.
        """
        if not spec.messages:
            raise InvalidInput("there are no messages", field="messages", hint="send one turn")
        require_supported(spec.sampling, "openai", frozenset(_PASSED_ON))
        context.remaining_s()
        try:
            body = self._body(await self._model_name(), spec)
            async with aclosing(self._stream(body)) as events:
                async for event in events:
                    yield event
        except httpx.HTTPError as error:
            raise error_of_transport(error, self._server, self._config.read_s) from error
        except RagrigError as error:
            error.message = self._without_key(error.message)
            raise

    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[GenerateEvent, None]:
        started_s = time.monotonic()
        url = f"{self._config.base_url}/chat/completions"
        count = _Count()
        async with self._client.stream("POST", url, json=body) as reply:
            if reply.status_code != 200:
                head = await _read_head(reply, _MAX_ERROR_BODY_BYTES)
                if reply.status_code == 404:
                    self._model = self._config.model  # it may serve another one by now
                raise error_of_status(reply, head, self._server, self._key_hint)
            chunks = cast(AsyncGenerator[bytes, None], reply.aiter_raw())
            async with aclosing(read_events(chunks, self._server)) as events:
                async for event in events:
                    if text := count.take(event, self._server):
                        elapsed_s = time.monotonic() - started_s
                        count.first_us = count.first_us or int(elapsed_s * 1e6)
                        yield TokenPiece(text)
        if count.finish is None:
            raise UpstreamError(f"{self._server} ended its answer before it was finished")
        if text := count.pairs.end():
            yield TokenPiece(text)
        total_us = int((time.monotonic() - started_s) * 1e6)
        prompt = count.prompt_tokens
        if prompt is None:
            prompt = sum(map(len, word_offsets([str(m["content"]) for m in body["messages"]])))
        completion = count.pieces if count.completion_tokens is None else count.completion_tokens
        yield GenerateEnd(count.finish, prompt, completion, 0, count.first_us, total_us)

    def _body(self, model: str, spec: GenerateSpec) -> dict[str, Any]:
        sampling = spec.sampling
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": m.role, "content": m.content} for m in spec.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in _PASSED_ON:
            if value := getattr(sampling, name):
                body[name] = value
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body

    def _without_key(self, message: str) -> str:
        """Some servers repeat the key they refuse."""
        key = self._config.api_key
        return message.replace(key, "***") if key else message


@dataclass
class _Count:
    """What the events of one answer added up to."""

    pieces: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish: str | None = None
    first_us: int = 0
    pairs: Pairs = field(default_factory=Pairs)

    def take(self, event: dict[str, Any], server: str) -> str:
        """Text that is certain with this event; raises UpstreamError when it is none of a chat."""
        if event.get("error"):
            raise error_in_stream(event, server)
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = _count_or_none(usage.get("prompt_tokens"))
            self.completion_tokens = _count_or_none(usage.get("completion_tokens"))
        choices = event.get("choices")
        if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
            raise UpstreamError(f"{server} sent an event without choices: {quote_value(event)}")
        if not choices:
            return ""
        reason = choices[0].get("finish_reason")
        if reason is not None:
            self.finish = _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
        delta = choices[0].get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if text is not None and not isinstance(text, str):
            raise UpstreamError(f"{server} sent content that is no text: {quote_value(text)}")
        self.pieces += bool(text)
        return self.pairs.take(text or "")


def _is_name(value: object) -> TypeGuard[str]:
    """Half a surrogate pair, which JSON can hold, is not printable and could not be sent back."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _count_or_none(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and 0 <= value < 1 << 40 else None


async def _read_head(reply: httpx.Response, limit: int) -> bytes:
    """At most ``limit`` bytes of a body."""
    body = b""
    async with aclosing(cast(AsyncGenerator[bytes, None], reply.aiter_raw())) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) >= limit:
                break
    return body[:limit]
