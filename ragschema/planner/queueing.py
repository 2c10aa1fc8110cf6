"""Servers of the simulation: a group that works on one batch at a time, and slots.

``look`` starts what can start and returns events to come; ``on_event`` ends what an event
says and returns the requests that leave. An event is (time, what) with a number that the
server gave out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Event = tuple[float, int]

_WAKE = -1


@dataclass(frozen=True)
class Step:
    """One stage of a server.

    Attributes:
        latency_s: for 1 .. batch requests.
        timeout_s: how long the oldest request of a batch that is not full waits.
        work: per request what it adds to a batch beside a mean one; 0: it passes the stage
            by; None: all are alike.
    """

    name: str
    batch: int
    latency_s: Sequence[float]
    timeout_s: float = np.inf
    work: Sequence[float] | None = None

    def takes(self, request: int) -> bool:
        """Whether the request goes through."""
        return self.work is None or self.work[request] > 0

    def seconds(self, requests: Sequence[int]) -> float:
        """Of one batch of them."""
        took_s = self.latency_s[len(requests) - 1]
        if self.work is None:
            return took_s
        return took_s * sum(self.work[request] for request in requests) / len(requests)


class GroupServer:
    """Stages that share their chips.

    ``service_s`` adds up what requests spend in batches, by stage.
    """

    def __init__(self, name: str, steps: Sequence[Step], requests: int) -> None:
        self.name = name
        self.busy_s = 0.0
        self.wait_s = {step.name: [0.0] * requests for step in steps}
        self.service_s = {step.name: 0.0 for step in steps}
        self._steps = list(steps)
        self._queues: list[deque[tuple[float, int]]] = [deque() for _ in steps]
        self._working: tuple[int, list[int]] | None = None
        self._wake_s = np.inf

    @property
    def working(self) -> bool:
        """Whether a batch is under way."""
        return self._working is not None

    def enter(self, now: float, requests: Sequence[int]) -> Sequence[int]:
        """Queues requests; returns those that pass every stage by."""
        return self._queue(now, requests, 0)

    def _queue(self, now: float, requests: Sequence[int], place: int) -> Sequence[int]:
        past = []
        for request in requests:
            for step, queue in zip(self._steps[place:], self._queues[place:], strict=True):
                if step.takes(request):
                    queue.append((now, request))
                    break
            else:
                past.append(request)
        return past

    def look(self, now: float) -> list[Event]:
        """Starts a batch of the last stage that has one ready."""
        if self._working is not None:
            return []
        for place in reversed(range(len(self._steps))):
            step, queue = self._steps[place], self._queues[place]
            if len(queue) >= step.batch or (queue and now >= queue[0][0] + step.timeout_s):
                return [self._start(now, place)]
        wake = min(
            (q[0][0] + s.timeout_s for q, s in zip(self._queues, self._steps, strict=True) if q),
            default=np.inf,
        )
        if now < wake < self._wake_s or (self._wake_s <= now < wake < np.inf):
            self._wake_s = wake
            return [(wake, _WAKE)]
        return []

    def _start(self, now: float, place: int) -> Event:
        step, queue = self._steps[place], self._queues[place]
        waits = self.wait_s[step.name]
        taken = []
        for _ in range(min(step.batch, len(queue))):
            since, request = queue.popleft()
            waits[request] = now - since
            taken.append(request)
        took_s = step.seconds(taken)
        self.busy_s += took_s
        self.service_s[step.name] += took_s * len(taken)
        self._working = (place, taken)
        return (now + took_s, place)

    def on_event(self, now: float, what: int) -> Sequence[int]:
        if what == _WAKE:
            return ()
        assert self._working is not None, "an event of a batch that was started"
        place, done = self._working
        self._working = None
        return self._queue(now, done, place + 1)


class SlotServer:
    """A continuous batch: every request has a slot of its own for the time of a full one."""

    def __init__(self, step: Step, requests: int) -> None:
        self.name = step.name
        self.busy_s = 0.0
        self.wait_s = {step.name: [0.0] * requests}
        self.service_s = {step.name: 0.0}
        self._step = step
        self._free = step.batch
        self._latency_s = step.latency_s[-1]
        self._queue: deque[tuple[float, int]] = deque()

    @property
    def working(self) -> bool:
        """Whether a slot is taken."""
        return self._free < self._step.batch

    def enter(self, now: float, requests: Sequence[int]) -> Sequence[int]:
        """Queues requests; returns those that pass the stage by."""
        self._queue.extend((now, request) for request in requests if self._step.takes(request))
        return [request for request in requests if not self._step.takes(request)]

    def look(self, now: float) -> list[Event]:
        events = []
        while self._free and self._queue:
            since, request = self._queue.popleft()
            self.wait_s[self.name][request] = now - since
            self._free -= 1
            self.busy_s += self._latency_s / self._step.batch
            self.service_s[self.name] += self._latency_s
            events.append((now + self._latency_s, request))
        return events

    def on_event(self, now: float, what: int) -> Sequence[int]:
        self._free += 1
        return [what]
