"""Snapshots that wait to be pulled, under tickets."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llm_node.engine.kv import KvSnapshot
from ragschema.errors import NotFound, Overloaded, PayloadTooLarge


@dataclass(frozen=True)
class _Held:
    snapshot: KvSnapshot
    size: int
    expires_s: float


class SnapshotStore:
    """Bounded in bytes; a snapshot goes when it is released or its time is up.

    Args:
        clock: seconds, what deadlines are compared with.

    Attributes:
        max_bytes: of all snapshots together, those being computed included.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._reserved = 0

    @property
    def bytes_held(self) -> int:
        """Of the snapshots that can be pulled."""
        return sum(held.size for held in self._held.values())

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Room for a snapshot that is about to be computed.

        Raises:
            PayloadTooLarge: it does not even fit when nothing else is held.
            Overloaded: there is none until others are released.
        """
        if size > self.max_bytes:
            raise PayloadTooLarge(
                f"the prompt's KV has {size} bytes, a prefill node keeps {self.max_bytes} at most",
                field="messages",
                hint="send fewer or shorter passages, or run a node of the role generate",
            )
        self._drop_expired()
        if self.bytes_held + self._reserved + size > self.max_bytes:
            raise Overloaded(
                f"{self.bytes_held + self._reserved} bytes of KV wait for decode nodes,"
                f" {self.max_bytes} may",
                hint="try again later, or add decode nodes",
            )
        self._reserved += size
        try:
            yield
        finally:
            self._reserved -= size

    def put(self, snapshot: KvSnapshot, size: int, expires_s: float) -> str:
        """Keeps a snapshot, in the room reserved for it; gives its ticket."""
        ticket = secrets.token_hex(16)
        self._held[ticket] = _Held(snapshot, size, expires_s)
        return ticket

    def get(self, ticket: str) -> KvSnapshot:
        """Raises NotFound when the ticket is unknown by now."""
        self._drop_expired()
        held = self._held.get(ticket)
        if held is None:
            raise NotFound(
                "this ticket stands for no KV here",
                field="ticket",
                hint="it was released, or its time was up; read the prompt again",
            )
        return held.snapshot

    def release(self, ticket: str) -> None:
        """Frees a snapshot; unknown tickets are ignored."""
        self._held.pop(ticket, None)

    def _drop_expired(self) -> None:
        now_s = self._clock()
        for ticket in [t for t, held in self._held.items() if held.expires_s <= now_s]:
            del self._held[ticket]
