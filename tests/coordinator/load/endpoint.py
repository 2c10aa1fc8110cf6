"""A small HTTP server that streams what a test wants it to, as fast or slow as it wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

#: Pieces of a response body, or seconds to wait before the next one.
Script = Callable[[dict[str, Any]], list[bytes | float]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


def piece(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def usage(prompt: int, output: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}})


DONE = b"data: [DONE]\n\n"


def answer(_: dict[str, Any]) -> list[bytes | float]:
    """Three pieces 20 ms apart, with usage."""
    return [
        HEAD, piece("", None), piece("one "), 0.02, piece("two "), 0.02, piece("three", "stop"),
        usage(7, 5), DONE,
    ]  # fmt: skip


def refusal(status: str, body: bytes) -> list[bytes | float]:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return [head.encode() + body]


@dataclass
class Endpoint:
    """What it saw.

    Attributes:
        most: requests that were under way at once.
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0


@asynccontextmanager
async def endpoint(script: Script) -> AsyncIterator[Endpoint]:
    seen = Endpoint()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.under_way += 1
        seen.most = max(seen.most, seen.under_way)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            body = json.loads(await reader.readexactly(size))
            seen.bodies.append(body)
            for step in script(body):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            seen.under_way -= 1
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        seen.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield seen
