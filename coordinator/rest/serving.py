"""Runs the application with uvicorn until a signal ends it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from ragschema.errors import InvalidInput, Unavailable
from ragschema.wire.serving import format_address

_KEEP_ALIVE_S = 75
_BACKLOG = 2048


@dataclass(frozen=True)
class Listener:
    """A listening socket; who connects before the server runs waits in its backlog."""

    socket: socket.socket
    address: str


def bind(host: str, port: int) -> Listener:
    """Takes the port; 0 takes any free one.

    Raises:
        InvalidInput: the host is no address of this machine.
        Unavailable: the port is taken or not ours to take.
    """
    plain = host.strip("[]")
    try:
        found = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidInput(
            f"{host!r} is no address: {error.strerror}",
            field="coordinator.host",
            hint="use 127.0.0.1, or an address of this machine",
        ) from error
    family, _, _, _, target = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        # Two sockets may share a port until one of them listens.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise Unavailable(
            f"cannot listen on {format_address(plain, port)}: {error.strerror}",
            field="coordinator.port",
            hint="choose another port in the rig file, or 0 for any free one",
        ) from error
    return Listener(bound, format_address(plain, bound.getsockname()[1]))


class Server(uvicorn.Server):
    """uvicorn without its signal handling: a signal is a clean end here, not a re-raise.

    Args:
        on_ready: called once connections are accepted.
    """

    def __init__(self, app: ASGIApp, drain_s: int, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=drain_s,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
