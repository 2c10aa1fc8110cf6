"""What a batcher keeps of requests and of the calls they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from ragschema.types import CallContext

Req = TypeVar("Req")
Res = TypeVar("Res")
#: Trace ids named in one call's metadata; the rest is counted.
_TRACE_IDS_NAMED = 16


@dataclass(frozen=True, slots=True)
class Batched(Generic[Res]):
    """A result and where its time went, in seconds."""

    value: Res
    queued_s: float
    ran_s: float


class Member(Generic[Req, Res]):
    """One waiting request."""

    __slots__ = ("call", "context", "enqueued_s", "future", "key", "request", "timer")

    def __init__(
        self,
        request: Req,
        context: CallContext,
        key: Hashable,
        future: asyncio.Future[Batched[Res]],
    ) -> None:
        self.request = request
        self.context = context
        self.key = key
        self.future = future
        self.enqueued_s = time.perf_counter()
        self.call: Call[Req, Res] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Call(Generic[Req, Res]):
    """One batch under way."""

    __slots__ = ("members", "present", "task")

    def __init__(self, members: list[Member[Req, Res]]) -> None:
        self.members = members
        self.present = len(members)
        self.task: asyncio.Task[None] | None = None


def shared_context(members: Sequence[Member[Req, Res]]) -> CallContext:
    """The call's context: the latest deadline, and who it is for."""
    if len(members) == 1:
        return members[0].context
    names = ",".join(m.context.trace_id for m in islice(members, _TRACE_IDS_NAMED))
    if len(members) > _TRACE_IDS_NAMED:
        names += f",+{len(members) - _TRACE_IDS_NAMED}"
    return CallContext(names, max(m.context.deadline_s for m in members))
