"""Decode in the simulation: one running batch in which all sequences advance together.

Progress is counted in tokens on a clock of its own, which runs as fast as the batch's
fullness allows; a sequence ends, or retrieves again, at a fixed reading of that clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragschema.errors import InvalidInput
from ragschema.planner.queueing import Event

_TIMED_OUT = -2


@dataclass(frozen=True)
class Iteration:
    """Retrievals during decode, at random tokens of a sequence.

    Attributes:
        retrievals: per sequence, besides the first one before decode; None: what each
            request says.
        batch: sequences that retrieve together.
        latency_s: of a batch, retrieval and prefill of what was found together.
        timeout_s: how long the oldest one waits for a full batch; inf: for ever.
    """

    retrievals: int | None
    batch: int
    latency_s: float
    timeout_s: float = np.inf


class Decoding:
    """The decode stage.

    Args:
        per_token_s: seconds per token with 1 .. slots sequences under way.
        output: tokens of each sequence.
        again: retrievals of each sequence during decode.

    Attributes:
        ended: sequences that are done.

    Raises:
        InvalidInput: an iterative batch larger than the slots never fills.
    """

    def __init__(
        self,
        per_token_s: list[float],
        output: Sequence[float],
        again: Sequence[int],
        iteration: Iteration | None,
        rng: np.random.Generator,
    ) -> None:
        if iteration is not None and iteration.batch > len(per_token_s):
            raise InvalidInput(
                f"an iterative batch of {iteration.batch} never fills with"
                f" {len(per_token_s)} sequences in decode",
                field="iteration.batch",
                hint="give at most the decode batch",
            )
        self.ended_s = [0.0] * len(output)
        self.wait_s = [0.0] * len(output)
        self.ended = 0
        self._per_token_s = per_token_s
        self._output = output
        self._again = again
        self._iteration = iteration
        self._halted = False
        self._rng = rng
        self._queue: deque[tuple[float, int]] = deque()
        self._held = 0
        self._stops: list[tuple[float, int]] = []
        self._clock = 0.0
        self._read_at = 0.0
        self._tick_id = 0
        self._remaining: dict[int, list[float]] = {}
        self._stalled: deque[tuple[float, int]] = deque()
        self._looking_up: dict[int, list[int]] = {}
        self._lookups = 0
        self._due = -np.inf

    def enter(self, now: float, requests: Sequence[int]) -> list[Event]:
        self._queue.extend((now, request) for request in requests)
        return self._settle(now)

    def on_event(self, now: float, what: int) -> list[Event]:
        if what >= 0:
            if what % 2:  # a lookup has ended
                for request in self._looking_up.pop(what // 2):
                    self._resume(now, request)
            elif what // 2 != self._tick_id:
                return []  # the batch changed since this tick was planned
            else:
                self._move(now)
                # Exactly there: a rest too small for the clock would never pass.
                self._clock = max(self._clock, self._stops[0][0])
        return self._settle(now)

    def _settle(self, now: float) -> list[Event]:
        """Moves the clock to now, ends and stalls sequences, admits new ones."""
        self._move(now)
        while self._stops and self._stops[0][0] <= self._clock:
            _, request = heapq.heappop(self._stops)
            if self._remaining[request]:
                self._stalled.append((now, request))
            else:
                del self._remaining[request]
                self.ended_s[request] = now
                self.ended += 1
                self._held -= 1
        while self._queue and self._held < len(self._per_token_s):
            since, request = self._queue.popleft()
            self.wait_s[request] = now - since
            self._admit(now, request)
        return [*self._look_up(now), *self._next_tick(now)]

    def halt(self, now: float) -> None:
        """The chips work for other stages: no sequence advances."""
        self._move(now)
        self._halted = True
        self._tick_id += 1  # what was planned does not happen then

    def go_on(self, now: float) -> list[Event]:
        """They are free again."""
        self._move(now)
        self._halted = False
        return self._settle(now)

    def _move(self, now: float) -> None:
        if self._stops and not self._halted:
            self._clock += (now - self._read_at) / self._per_token_s[len(self._stops) - 1]
        self._read_at = now

    def _admit(self, now: float, request: int) -> None:
        self._held += 1
        extra = self._again[request] if self._iteration else 0
        output = self._output[request]
        cuts = np.sort(self._rng.uniform(0, output, extra)).tolist() if extra else []
        # Lengths of the pieces between retrievals, the next one last.
        borders = [0.0, *cuts, float(output)]
        pieces = [b - a for a, b in itertools.pairwise(borders)]
        self._remaining[request] = pieces[::-1]
        self._resume(now, request)

    def _resume(self, now: float, request: int) -> None:
        self._move(now)
        heapq.heappush(self._stops, (self._clock + self._remaining[request].pop(), request))

    def _look_up(self, now: float) -> list[Event]:
        events: list[Event] = []
        iteration = self._iteration
        while iteration is not None and self._stalled:
            due = self._stalled[0][0] + iteration.timeout_s
            if len(self._stalled) < iteration.batch and now < due:
                if self._due < due < np.inf:
                    self._due = due  # said once
                    events.append((due, _TIMED_OUT))
                break
            size = min(iteration.batch, len(self._stalled))
            self._lookups += 1
            self._looking_up[self._lookups] = [self._stalled.popleft()[1] for _ in range(size)]
            events.append((now + iteration.latency_s, self._lookups * 2 + 1))
        return events

    def _next_tick(self, now: float) -> list[Event]:
        """When the next sequence ends or stalls, if nothing changes before."""
        self._tick_id += 1
        if not self._stops or self._halted:
            return []
        left = max(0.0, self._stops[0][0] - self._clock)
        return [(now + left * self._per_token_s[len(self._stops) - 1], self._tick_id * 2)]
