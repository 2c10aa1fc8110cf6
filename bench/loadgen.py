"""A cheap HTTP/1.1 keep-alive load generator, for a process of its own.

``python -m bench.loadgen --address HOST:PORT --path /v1/search --bodies FILE``
keeps CONNECTIONS requests in flight and prints one JSON line. A general HTTP
client would be slower than the server it measures; this one writes requests
that were put together beforehand and reads no more than length and status.

``--ceiling`` measures the generator itself, against a server in another
process that does nothing but answer.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import multiprocessing
import re
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from bench.common import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FIXED_REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
_END = b"\r\n\r\n"


@dataclass
class Tally:
    """What came back; latencies in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, what: str) -> None:
        self.failures[what] = self.failures.get(what, 0) + 1


class Requester(asyncio.Protocol):
    """One connection: sends the next request as soon as an answer is complete.

    Args:
        requests: whole requests as bytes, used in turn.
        first: where in them this connection begins.
        limit: requests after which it stops; None: until it is told to.
    """

    def __init__(self, requests: list[bytes], first: int, limit: int | None, tally: Tally) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._next = first
        self._left = limit
        self._tally = tally
        self._buffer = b""
        self._sent_s = 0.0
        self._stopping = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's has no such base
        self._send()

    def stop(self) -> None:
        """No further request; the one in flight is still counted."""
        self._stopping = True

    def _send(self) -> None:
        assert self._transport is not None
        if self._stopping or self._left == 0:
            self._finish()
            return
        if self._left is not None:
            self._left -= 1
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._sent_s = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(_END)
        if head_end < 0:
            return
        found = _LENGTH.search(self._buffer, 0, head_end)
        if found is None:
            self._tally.fail("no content-length")
            self._finish()
            return
        size = head_end + len(_END) + int(found[1])
        if len(self._buffer) < size:
            return
        if self._buffer[9:12] == b"200":
            self._tally.latencies_s.append(time.perf_counter() - self._sent_s)
        else:
            self._tally.fail(self._buffer[9:12].decode("ascii", "replace"))
        self._buffer = self._buffer[size:]
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._tally.fail("connection lost")
            self.done.set_result(None)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        assert self._transport is not None
        self._transport.close()


def build_requests(host: str, method: str, path: str, bodies: list[bytes]) -> list[bytes]:
    """Whole requests, one for each body."""
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n"
    if method == "GET":
        return [f"{head}\r\n".encode("ascii")]
    kind = "content-type: application/json\r\n"
    return [
        f"{head}{kind}content-length: {len(body)}\r\n\r\n".encode("ascii") + body for body in bodies
    ]


def _same(requester: Requester) -> Requester:
    """A protocol factory for a protocol that is already made."""
    return requester


async def drive(
    host: str, port: int, requests: list[bytes], connections: int, seconds: float, count: int | None
) -> dict[str, object]:
    """Runs the load; ``count`` requests per connection, or for so many seconds."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    spread = max(1, len(requests) // connections)
    started_s = time.perf_counter()
    requesters = [Requester(requests, i * spread, count, tally) for i in range(connections)]
    for requester in requesters:
        await loop.create_connection(functools.partial(_same, requester), host, port)
    if count is None:
        for requester in requesters:
            loop.call_later(seconds, requester.stop)
    await asyncio.gather(*(requester.done for requester in requesters))
    return summary(tally, time.perf_counter() - started_s)


def summary(tally: Tally, seconds: float) -> dict[str, object]:
    """Latencies in milliseconds."""
    ok = [s * 1e3 for s in tally.latencies_s]
    return {
        "requests": len(ok),
        "failures": tally.failures,
        "rps": round(len(ok) / seconds, 1),
        "p50_ms": round(percentile(ok, 0.5), 3) if ok else None,
        "p99_ms": round(percentile(ok, 0.99), 3) if ok else None,
    }


class FixedReply(asyncio.Protocol):
    """Answers every read with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_FIXED_REPLY)


def _serve_fixed(pipe: Connection) -> None:
    """A process that only answers, until it is ended."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(FixedReply, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def ceiling(connections: int, seconds: float) -> dict[str, object]:
    """What this generator can do at most."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve_fixed, args=(there,), daemon=True
    )
    server.start()
    try:
        requests = build_requests("127.0.0.1", "GET", "/", [])
        return uvloop.run(drive("127.0.0.1", here.recv(), requests, connections, seconds, None))
    finally:
        server.terminate()
        server.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", metavar="HOST:PORT", help="the server")
    parser.add_argument("--method", choices=("GET", "POST"), default="GET")
    parser.add_argument("--path", default="/")
    parser.add_argument("--bodies", type=Path, help="JSON lines, one body each, used in turn")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--count", type=int, help="requests per connection instead of --seconds")
    parser.add_argument("--ceiling", action="store_true", help="measure the generator itself")
    given = parser.parse_args()
    if given.ceiling:
        print(json.dumps(ceiling(given.connections, given.seconds)))
        return
    host, _, port = given.address.rpartition(":")
    bodies = given.bodies.read_bytes().splitlines() if given.bodies else []
    requests = build_requests(given.address, given.method, given.path, bodies)
    load = drive(host, int(port), requests, given.connections, given.seconds, given.count)
    print(json.dumps(uvloop.run(load)))


if __name__ == "__main__":
    main()
