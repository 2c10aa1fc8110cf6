"""The load generator counts every answer once, whole ones and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.loadgen import build_requests, drive

Handler = Callable[[bytes], list[bytes]]


@asynccontextmanager
async def server(pieces: Handler) -> AsyncIterator[int]:
    """Answers each request with these pieces, sent one by one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [line for line in head.split(b"\r\n") if b"content-length" in line]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                for piece in pieces(body):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def ok(body: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"]


@pytest.mark.parametrize("connections", [1, 8])
async def test_every_request_is_counted(connections: int) -> None:
    async with server(ok) as port:
        requests = build_requests("x", "GET", "/", [])
        result = await drive("127.0.0.1", port, requests, connections, 0.0, 20)
    assert result["requests"] == 20 * connections
    assert result["failures"] == {}


async def test_an_answer_in_pieces_is_one_answer() -> None:
    def pieces(body: bytes) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\ncontent-", b"length: 6\r\n", b"\r\nab", b"cdef"]

    async with server(pieces) as port:
        requests = build_requests("x", "GET", "/", [])
        result = await drive("127.0.0.1", port, requests, 2, 0.0, 5)
    assert (result["requests"], result["failures"]) == (10, {})


async def test_bodies_are_used_in_turn() -> None:
    seen: list[bytes] = []

    def note(body: bytes) -> list[bytes]:
        seen.append(body)
        return ok(body)

    async with server(note) as port:
        requests = build_requests("x", "POST", "/", [b"one", b"two", b"three"])
        await drive("127.0.0.1", port, requests, 1, 0.0, 4)
    assert seen == [b"one", b"two", b"three", b"one"]


async def test_refusals_and_broken_answers_are_failures() -> None:
    def refuse(body: bytes) -> list[bytes]:
        return [b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"]

    def endless(body: bytes) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]

    requests = build_requests("x", "GET", "/", [])
    async with server(refuse) as port:
        refused = await drive("127.0.0.1", port, requests, 1, 0.0, 3)
    async with server(endless) as port:
        broken = await drive("127.0.0.1", port, requests, 1, 0.0, 3)
    assert (refused["requests"], refused["failures"]) == (0, {"503": 3})
    assert (broken["requests"], broken["failures"]) == (0, {"no content-length": 1})


async def test_it_stops_when_the_time_is_over() -> None:
    async with server(ok) as port:
        requests = build_requests("x", "GET", "/", [])
        async with asyncio.timeout(30):
            result = await drive("127.0.0.1", port, requests, 4, 0.2, None)
    assert isinstance(result["requests"], int)
    assert result["requests"] > 0
    assert result["failures"] == {}
