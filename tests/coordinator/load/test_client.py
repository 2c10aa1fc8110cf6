"""One streamed answer: when its pieces came, what it counted, and how it may fail."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from coordinator.load.client import LoadClient, Reply
from tests.coordinator.load.endpoint import (
    DONE,
    HEAD,
    Script,
    answer,
    endpoint,
    event,
    piece,
    refusal,
    usage,
)


async def ask(script: Script, timeout_s: float = 20.0, key: str | None = None) -> Reply:
    async with endpoint(script) as server, LoadClient(server.url, key, 1, timeout_s) as client:
        return await client.ask(b"{}")


async def test_pieces_are_timed_as_they_come() -> None:
    reply = await ask(answer)
    assert reply.failure is None
    assert len(reply.pieces_s) == 3, "the empty first piece has no text"
    assert reply.sent_s <= reply.pieces_s[0]
    assert reply.pieces_s[-1] <= reply.end_s
    gaps = [b - a for a, b in zip(reply.pieces_s, reply.pieces_s[1:], strict=False)]
    assert all(gap > 0.015 for gap in gaps)
    assert (reply.prompt_tokens, reply.output_tokens) == (7, 5)


async def test_what_a_rig_adds_is_read() -> None:
    extras = {
        "timings": {"embed_ms": 2.5, "probe_ms": None, "note": 1},
        "coverage": {"fraction": 0.5},
    }
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **extras})
    reply = await ask(lambda _: [HEAD, piece("x"), last, DONE])
    assert reply.failure is None
    assert reply.stages_ms == {"embed": 2.5}
    assert reply.coverage == 0.5


async def test_events_may_be_cut_anywhere() -> None:
    raw = b": hello\r\n\r\n" + piece("ab").replace(b"\n", b"\r\n") + usage(1, 2) + DONE
    reply = await ask(lambda _: [HEAD, *(bytes([byte]) for byte in raw)])
    assert reply.failure is None
    assert len(reply.pieces_s) == 1
    assert reply.output_tokens == 2


@pytest.mark.parametrize(
    ("steps", "kind", "detail"),
    [
        (refusal("429 Too Many", b'{"error": {"message": "full"}}'), "http 429", "full"),
        (refusal("500 Oops", b"<html>"), "http 500", "<html>"),
        (refusal("503 Away", b""), "http 503", "no reason given"),
        ([HEAD, piece("a"), event({"error": {"type": "unavailable", "message": "gone"}})],
         "stream unavailable", "gone"),
        ([HEAD, event({"error": "bad"})], "stream error", "bad"),
        ([HEAD, piece("a")], "broken", "before its last event"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", piece("a")], "broken", ""),
        ([HEAD, b"data: {\n\n"], "unreadable", ""),
        ([HEAD, b"data: [1]\n\n"], "unreadable", ""),
        ([HEAD, event({"choices": [{"delta": 3}]})], "unreadable", ""),
        ([HEAD, piece("", "stop"), DONE], "empty", "no text"),
        ([HEAD, piece("a"), 5.0], "timeout", "0.3 s"),
    ],
)  # fmt: skip
async def test_every_failure_has_a_kind(steps: list[Any], kind: str, detail: str) -> None:
    reply = await ask(lambda _: steps, timeout_s=0.3)
    assert reply.failure is not None
    assert reply.failure.kind == kind
    assert detail in reply.failure.detail


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    async with LoadClient(url, None, 1, 5.0) as client:
        reply = await client.ask(b"{}")
    assert reply.failure is not None
    assert reply.failure.kind == "refused"


async def test_an_end_without_the_last_mark_counts_when_it_said_why() -> None:
    reply = await ask(lambda _: [HEAD, piece("all", "stop")])
    assert reply.failure is None


async def test_tokens_without_text_are_an_answer() -> None:
    reply = await ask(lambda _: [HEAD, piece("", "length"), usage(3, 8), DONE])
    assert reply.failure is None
    assert reply.pieces_s == ()
    assert reply.output_tokens == 8


async def test_a_cancelled_request_still_tells_what_came() -> None:
    async with (
        endpoint(lambda _: [HEAD, piece("a"), 30.0]) as server,
        LoadClient(server.url, None, 1, 60.0) as client,
    ):
        task = asyncio.create_task(client.ask(b"{}"))
        async with asyncio.timeout(10):
            while not server.bodies:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        reply = await task
    assert reply.failure is not None
    assert reply.failure.kind == "cancelled"
    assert len(reply.pieces_s) == 1
