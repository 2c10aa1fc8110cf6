"""One streamed chat completion, with the times at which its pieces came."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import orjson

CHAT_PATH: Final = "/v1/chat/completions"
_MAX_EVENT_BYTES: Final = 8 << 20
_MAX_DETAIL: Final = 300
_DONE: Final = b"[DONE]"


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer.

    Attributes:
        kind: ``refused``, ``timeout``, ``broken``, ``unreadable``, ``empty``, ``cancelled``,
            ``too late`` (never sent), ``http STATUS``, or ``stream TYPE`` of an error that came
            in the stream.
        detail: what the endpoint or the network said, cut short.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Reply:
    """What came back; times are of ``time.perf_counter``.

    Attributes:
        sent_s: when it was handed to the network.
        pieces_s: when each piece with text came, ascending; empty where all tokens of an answer
            have no text, as those of a model with random weights may.
        end_s: when the answer was complete, or failed.
        prompt_tokens, output_tokens: as the endpoint counts them; None: it did not say.
        stages_ms: what the endpoint says its stages took, such as ragrig's ``timings``.
        coverage: share of the collection that was searched; None: it did not say.
    """

    sent_s: float
    end_s: float
    pieces_s: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    coverage: float | None = None
    failure: Failure | None = None


class LoadClient:
    """Sends requests to one endpoint, each on a connection of its own while it lasts.

    Args:
        url: of the server, without /v1.
        connections: at most open at once; whoever sends keeps to that number.
        timeout_s: for a whole answer.
    """

    def __init__(self, url: str, api_key: str | None, connections: int, timeout_s: float) -> None:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s
        # Proxies are for the outside, and would be measured along.
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers=headers,
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(self, body: bytes) -> Reply:
        """Sends a body and reads its stream; failures are part of the reply.

        A cancelled call returns a reply too, so that what was under way is counted.
        """
        reading = _Reading(time.perf_counter())
        failure: Failure | None
        try:
            async with asyncio.timeout(self._timeout_s):
                failure = await self._read(body, reading)
        except (TimeoutError, httpx.TimeoutException):
            failure = Failure("timeout", f"no whole answer within {self._timeout_s:g} s")
        except httpx.ConnectError as error:
            failure = Failure("refused", _short(error))
        except httpx.HTTPError as error:
            failure = Failure("broken", _short(error))
        except asyncio.CancelledError:
            failure = Failure("cancelled", "the load was stopped")
        return reading.reply(failure)

    async def _read(self, body: bytes, reading: _Reading) -> Failure | None:
        async with self._http.stream("POST", CHAT_PATH, content=body) as answer:
            if answer.status_code != httpx.codes.OK:
                return Failure(
                    f"http {answer.status_code}", _said(await answer.aread()) or "no reason given"
                )
            async for event in _events(answer):
                if event == _DONE:
                    return reading.verdict()
                failure = reading.take(event)
                if failure is not None:
                    return failure
        if not reading.finished:
            return Failure("broken", "the stream ended before its last event")
        return reading.verdict()


@dataclass
class _Reading:
    """An answer as far as it came."""

    sent_s: float
    pieces_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    coverage: float | None = None
    finished: bool = False

    def take(self, event: bytes) -> Failure | None:
        """Notes one event; a failure where it is one."""
        now_s = time.perf_counter()
        try:
            chunk = orjson.loads(event)
            if "error" in chunk:
                return Failure(f"stream {_type_of(chunk['error'])}", _said(event))
            choices = chunk.get("choices") or ()
            if choices:
                delta = choices[0].get("delta") or {}
                if delta.get("content") or delta.get("reasoning_content"):
                    self.pieces_s.append(now_s)
                self.finished = self.finished or choices[0].get("finish_reason") is not None
            self._note_extras(chunk)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            return Failure("unreadable", f"{type(error).__name__} in {event[:80]!r}")
        return None

    def _note_extras(self, chunk: Mapping[str, Any]) -> None:
        usage = chunk.get("usage")
        if usage:
            self.prompt_tokens = int(usage["prompt_tokens"])
            self.output_tokens = int(usage["completion_tokens"])
        for name, value in (chunk.get("timings") or {}).items():
            if name.endswith("_ms") and isinstance(value, int | float) and math.isfinite(value):
                self.stages_ms[name.removesuffix("_ms")] = float(value)
        coverage = chunk.get("coverage")
        if coverage:
            self.coverage = float(coverage["fraction"])

    def verdict(self) -> Failure | None:
        """Of an answer that is complete; tokens may be counted that have no text to show."""
        if self.pieces_s or self.output_tokens:
            return None
        return Failure("empty", "the answer has no text")

    def reply(self, failure: Failure | None) -> Reply:
        return Reply(
            self.sent_s,
            time.perf_counter(),
            tuple(self.pieces_s),
            self.prompt_tokens,
            self.output_tokens,
            self.stages_ms,
            self.coverage,
            failure,
        )


async def _events(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The data of server-sent events; comments and other fields are skipped."""
    held, data = b"", b""
    async for part in answer.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                data += line.removeprefix(b"data:").removeprefix(b" ")
            elif not line and data:
                yield data
                data = b""
        if len(held) + len(data) > _MAX_EVENT_BYTES:
            raise httpx.DecodingError(f"an event is longer than {_MAX_EVENT_BYTES} bytes")
    if data:
        yield data


def _said(body: bytes) -> str:
    """The message of an error body, or its beginning."""
    try:
        error = orjson.loads(body)["error"]
        text = str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, TypeError, LookupError):
        text = body.decode("utf-8", "replace").strip()
    return text[:_MAX_DETAIL]


def _type_of(error: object) -> str:
    kind = error.get("type") if isinstance(error, dict) else None
    return str(kind or "error")[:60]


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_MAX_DETAIL]
