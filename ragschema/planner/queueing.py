"""Servers of the simulation: a group that works on one batch at a time, and slots.

``look`` starts what can start and returns events to come; ``on_event`` ends what an event
says and returns the requests that leave. An event is (time, what) with a number that the
server gave out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

Event = tuple[float, int]
Step = tuple[str, int, list[float], float]

_WAKE = -1


class GroupServer:
    """Stages that share their chips.

    Args:
        steps: per stage its name, its batch, seconds for 1 .. batch requests, and how
            long the oldest request of a batch that is not full waits.
    """

    def __init__(self, name: str, steps: Sequence[Step], requests: int) -> None:
        self.name = name
        self.busy_s = 0.0
        self.wait_s = {step[0]: [0.0] * requests for step in steps}
        self._steps = list(steps)
        self._queues: list[deque[tuple[float, int]]] = [deque() for _ in steps]
        self._working: tuple[int, list[int]] | None = None
        self._wake_s = np.inf

    def enter(self, now: float, requests: Sequence[int]) -> None:
        self._queues[0].extend((now, request) for request in requests)

    def look(self, now: float) -> list[Event]:
        """Starts a batch of the last stage that has one ready."""
        if self._working is not None:
            return []
        for place in reversed(range(len(self._steps))):
            _, batch, _, timeout_s = self._steps[place]
            queue = self._queues[place]
            if len(queue) >= batch or (queue and now >= queue[0][0] + timeout_s):
                return [self._start(now, place)]
        wake = min(
            (q[0][0] + s[3] for q, s in zip(self._queues, self._steps, strict=True) if q),
            default=np.inf,
        )
        if now < wake < self._wake_s or (self._wake_s <= now < wake < np.inf):
            self._wake_s = wake
            return [(wake, _WAKE)]
        return []

    def _start(self, now: float, place: int) -> Event:
        name, batch, latency_s, _ = self._steps[place]
        queue, waits = self._queues[place], self.wait_s[name]
        taken = []
        for _ in range(min(batch, len(queue))):
            since, request = queue.popleft()
            waits[request] = now - since
            taken.append(request)
        took_s = latency_s[len(taken) - 1]
        self.busy_s += took_s
        self._working = (place, taken)
        return (now + took_s, place)

    def on_event(self, now: float, what: int) -> Sequence[int]:
        if what == _WAKE:
            return ()
        assert self._working is not None, "an event of a batch that was started"
        place, done = self._working
        self._working = None
        if place + 1 < len(self._steps):
            self._queues[place + 1].extend((now, request) for request in done)
            return ()
        return done


class SlotServer:
    """A continuous batch: every request has a slot of its own for the same time."""

    def __init__(self, name: str, slots: int, latency_s: float, requests: int) -> None:
        self.name = name
        self.busy_s = 0.0
        self.wait_s = {name: [0.0] * requests}
        self._free = slots
        self._slots = slots
        self._latency_s = latency_s
        self._queue: deque[tuple[float, int]] = deque()

    def enter(self, now: float, requests: Sequence[int]) -> None:
        self._queue.extend((now, request) for request in requests)

    def look(self, now: float) -> list[Event]:
        events = []
        while self._free and self._queue:
            since, request = self._queue.popleft()
            self.wait_s[self.name][request] = now - since
            self._free -= 1
            self.busy_s += self._latency_s / self._slots
            events.append((now + self._latency_s, request))
        return events

    def on_event(self, now: float, what: int) -> Sequence[int]:
        self._free += 1
        return [what]
