"""The upstream generator against a real HTTP server on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llm_node.generate.upstream import UpstreamConfig, UpstreamGenerator, parse_reference
from llm_node.roles import GeneratorDeps
from ragschema.errors import (
    DeadlineExceeded,
    IncompatibleRequest,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RagrigError,
    Unavailable,
    UpstreamError,
)
from ragschema.types import (
    CallContext,
    ChatMessage,
    GenerateEnd,
    GenerateSpec,
    Sampling,
    TokenPiece,
)

Writer = asyncio.StreamWriter
Behaviour = Callable[[Writer], Awaitable[None]]
SPEC = GenerateSpec(
    (ChatMessage("user", "hi"),), "", (), Sampling(max_tokens=9, seed=5, stop=("x",))
)
MODELS = json.dumps({"object": "list", "data": [{"id": "tiny"}, {"id": "other"}]})


@dataclass
class Server:
    """An HTTP server whose answer to a chat completion is a test's to choose."""

    chat: Behaviour
    models: str = MODELS
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.headers.append(head)
            if head.startswith("GET /v1/models"):
                await reply(200, self.models)(writer)
            else:
                length = next(
                    int(line.split(":")[1])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length")
                )
                self.requests.append(json.loads(await reader.readexactly(length)))
                await self.chat(writer)
            writer.write_eof()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(chat: Behaviour, **changes: Any) -> AsyncIterator[Server]:
    server = Server(chat, **changes)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()


def reply(status: int, body: str, headers: str = "") -> Behaviour:
    async def write(writer: Writer) -> None:
        raw = body.encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n{headers}"
            "Connection: close\r\n\r\n".encode()
            + raw
        )
        await writer.drain()

    return write


def stream(*lines: str, after: Behaviour | None = None) -> Behaviour:
    async def write(writer: Writer) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        for line in lines:
            writer.write(f"data: {line}\n\n".encode())
            await writer.drain()
        if after is not None:
            await after(writer)

    return write


def delta(text: str | None, finish: str | None = None) -> str:
    chunk = {"delta": {"content": text}, "finish_reason": finish, "index": 0}
    return json.dumps({"choices": [chunk]})


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 17}})
GOOD = stream(delta(None), delta("Hél"), delta("lo 😀"), delta("", "stop"), USAGE, "[DONE]")


@asynccontextmanager
async def generator_for(server: Server, **changes: Any) -> AsyncIterator[UpstreamGenerator]:
    generator = UpstreamGenerator(
        replace(UpstreamConfig(server.url, model="tiny", read_s=10.0), **changes)
    )
    try:
        yield generator
    finally:
        await generator.close()


async def _run(generator: UpstreamGenerator, timeout_s: float = 30) -> tuple[str, GenerateEnd]:
    text = ""
    events = generator.generate(SPEC, CallContext.start(timeout_s))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, GenerateEnd):
                return text, event
            text += event.text
    raise AssertionError("no end")


async def _error(chat: Behaviour, **changes: Any) -> RagrigError:
    async with serving(chat) as server, generator_for(server, **changes) as generator:
        with pytest.raises(RagrigError) as caught:
            await _run(generator)
    return caught.value


async def test_streams_and_reports_true_usage() -> None:
    async with serving(GOOD) as server, generator_for(server, api_key="sekrit") as generator:
        text, end = await _run(generator)
    assert text == "Héllo 😀"
    assert (end.finish_reason, end.prompt_tokens, end.completion_tokens) == ("stop", 31, 17)
    sent = server.requests[0]
    assert sent["stream_options"] == {"include_usage": True}
    assert (sent["model"], sent["max_tokens"], sent["seed"]) == ("tiny", 9, 5)
    assert (sent["stop"], sent["messages"]) == (["x"], [{"role": "user", "content": "hi"}])
    assert "authorization: bearer sekrit" in server.headers[0].lower()


async def test_a_character_cut_in_two_is_joined_and_half_a_one_replaced() -> None:
    cut = [delta("a\ud83d"), delta("\ude00b"), delta("\udfff"), delta("c\ud83d", "stop")]
    async with serving(stream(*cut, "[DONE]")) as server, generator_for(server) as generator:
        text, end = await _run(generator)
    assert text == "a\U0001f600b\ufffdc\ufffd"
    assert (end.finish_reason, end.completion_tokens) == ("stop", 4)


async def test_penalties_are_passed_on_and_other_options_refused() -> None:
    async with serving(GOOD) as server, generator_for(server) as generator:
        asked = replace(SPEC, sampling=Sampling(presence_penalty=0.5, frequency_penalty=-1.0))
        async with aclosing(generator.generate(asked, CallContext.start(30))) as events:
            assert [event async for event in events]
        asked = replace(SPEC, sampling=Sampling(top_k=5))
        with pytest.raises(IncompatibleRequest, match="openai has no top_k"):
            await anext(generator.generate(asked, CallContext.start(30)))
    assert len(server.requests) == 1
    sent = server.requests[0]
    assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0.5, -1.0)


async def test_usage_is_estimated_when_not_given() -> None:
    async with (
        serving(stream(delta("a"), delta("b", "length"), "[DONE]")) as server,
        generator_for(server) as generator,
    ):
        _, end = await _run(generator)
    assert (end.finish_reason, end.prompt_tokens, end.completion_tokens) == ("length", 1, 2)


async def test_model_is_discovered() -> None:
    async with serving(GOOD) as server, generator_for(server, model=None) as generator:
        await generator.start()
        assert generator.info.name == "openai:tiny"
        await _run(generator)
    assert server.requests[0]["model"] == "tiny"


async def test_model_is_discovered_later_when_the_server_was_down() -> None:
    async with serving(GOOD, models="{}") as server, generator_for(server, model=None) as generator:
        await generator.start()
        assert generator.info.name == f"openai:{server.url}"
        with pytest.raises(UpstreamError, match="lists no model"):
            await _run(generator)
        server.models = MODELS
        assert (await _run(generator))[0] == "Héllo 😀"


@pytest.mark.parametrize(
    "models",
    ["[" * 100_000, '{"data": 5}', '{"data": [{"id": "\\ud83d"}]}', '{"data": "\\ud83d"}'],
    ids=["deep", "number", "half a name", "half a text"],
)
async def test_models_that_cannot_be_read_are_an_upstream_error(models: str) -> None:
    async with (
        serving(GOOD, models=models) as server,
        generator_for(server, model=None) as generator,
    ):
        await generator.start()
        with pytest.raises(
            UpstreamError, match=r"lists (no model|its models in no JSON)"
        ) as caught:
            await _run(generator)
    assert str(caught.value).encode("utf-8")


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (500, '{"error": {"message": "cuda went away"}}', UpstreamError, "500: cuda went away"),
        (401, '{"error": "bad key"}', UpstreamError, "401: bad key"),
        (404, '{"detail": "no such model"}', UpstreamError, "404: no such model"),
        (429, "slow down", Overloaded, "429: slow down"),
        (503, "", Unavailable, "answered 503"),
        (400, '{"error": {"message": "maximum context length is 9"}}', PayloadTooLarge, "400"),
        (302, "", UpstreamError, "answered 302"),
        (500, "[" * 9000, UpstreamError, "500: [[["),
        (500, '{"error": "cut \\ud83d"}', UpstreamError, "500: cut ?"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_error_statuses(
    status: int, body: str, error: type[RagrigError], message: str
) -> None:
    caught = await _error(reply(status, body))
    assert type(caught) is error
    assert message in caught.message
    assert "127.0.0.1" in caught.message


async def test_retry_after_is_passed_on() -> None:
    caught = await _error(reply(429, "", "Retry-After: 7\r\n"))
    assert isinstance(caught, Overloaded)
    assert caught.retry_after_s == 7.0


async def test_wrong_key_hint_names_the_variable_and_the_key_stays_secret() -> None:
    body = '{"error": {"message": "Incorrect API key provided: sekrit"}}'
    caught = await _error(reply(401, body), api_key="sekrit", api_key_env="MY_KEY")
    assert "MY_KEY" in (caught.hint or "")
    assert "sekrit" not in str(caught)


async def test_stall_is_a_timeout() -> None:
    async def wait(writer: Writer) -> None:
        await asyncio.sleep(20)

    caught = await _error(stream(delta("a"), after=wait), read_s=0.3)
    assert isinstance(caught, DeadlineExceeded)
    assert "sent nothing for 0.3 s" in caught.message


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        (reply(200, "<html>welcome</html>"), "does not stream"),
        (stream("{broken"), "not JSON"),
        (stream('{"object": "x"}'), "without choices"),
        (stream('{"choices": [{"delta": {"content": 5}}]}'), "no text"),
        (stream('{"error": {"message": "out of memory"}}'), "out of memory"),
        (stream(delta("half an answ")), "before it was finished"),
        (stream(delta("half"), "[DONE]"), "before it was finished"),
        (reply(200, ""), "before it was finished"),
        (stream("[" * 200_000), "nested too deeply"),
        (stream('{"a":' * 100_000), "nested too deeply"),
        (stream('{"error": "cut \\ud83d"}'), "cut ?"),
        (stream('{"choices": "\\ud83d"}'), "without choices"),
        (stream('{"choices": [{"delta": {"content": ["\\ud83d"]}}]}'), "no text"),
    ],
)
async def test_broken_streams(chat: Behaviour, message: str) -> None:
    caught = await _error(chat)
    assert isinstance(caught, UpstreamError)
    assert message in caught.message
    assert caught.message.encode("utf-8")


@pytest.mark.parametrize(
    "opening", ['{"error":%s}', '{"choices":%s}', '{"choices":[{"delta":%s}]}']
)
async def test_what_is_barely_readable_is_no_defect(opening: str) -> None:
    """Nested so deeply that it may be read, but not written where the error is made."""
    for depth in range(700, 1000, 7):
        nested = '{"content":' + "[" * depth + "]" * depth + "}"
        caught = await _error(stream(opening % nested))
        assert isinstance(caught, UpstreamError)


async def test_connection_reset_in_the_middle() -> None:
    async def reset(writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ndata: ")
        await writer.drain()

    caught = await _error(reset)
    assert isinstance(caught, UpstreamError)
    assert "broke" in caught.message


async def test_nobody_listens() -> None:
    async with serving(GOOD) as server:
        pass
    async with generator_for(server) as generator:
        with pytest.raises(Unavailable, match="cannot connect"):
            await _run(generator)


async def test_leaving_closes_the_upstream_connection() -> None:
    gone = asyncio.Event()

    async def endless(writer: Writer) -> None:
        try:
            while True:
                writer.write(f"data: {delta('x')}\n\n".encode())
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
            raise

    async with serving(stream(after=endless)) as server, generator_for(server) as generator:
        task = asyncio.create_task(_run(generator))
        events = generator.generate(SPEC, CallContext.start(30))
        assert isinstance(await anext(events), TokenPiece)
        await events.aclose()
        await asyncio.wait_for(gone.wait(), 20)
        gone.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.parametrize(
    ("given", "base", "model"),
    [
        ("http://host:8000", "http://host:8000/v1", None),
        ("http://host:8000/", "http://host:8000/v1", None),
        ("https://host/api/v1/#org/name", "https://host/api/v1", "org/name"),
    ],
)
def test_references(given: str, base: str, model: str | None) -> None:
    config = parse_reference(given, GeneratorDeps())
    assert (config.base_url, config.model) == (base, model)


@pytest.mark.parametrize("given", ["", "host:80", "ftp://host", "http://", "http://h:99999"])
def test_bad_references_are_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="no http or https URL"):
        parse_reference(given, GeneratorDeps())


def test_credentials_in_the_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reference("http://user:sekrit@host", GeneratorDeps())
    assert "sekrit" not in str(caught.value)
