"""Prefill and decode in the simulation, of an engine that reads prompts between its tokens.

Steps that are alike are played as one run; whoever arrives waits for the end of a step.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ragschema.planner.mixing import Steps
from ragschema.planner.queueing import Event

#: Tokens, and parts of a step, that are nothing.
_NOTHING = 1e-9


@dataclass
class _Run:
    """Steps that are alike, or a question that is embedded.

    Attributes:
        read: tokens that each step reads, by request.
        asked: whose question it is; None: these are steps.
    """

    began_s: float
    step_s: float
    steps: int
    read: dict[int, float] = field(default_factory=dict)
    asked: int | None = None

    @property
    def ends_s(self) -> float:
        return self.began_s + self.steps * self.step_s


class Engines:
    """Engines that share the requests: each goes where fewest are under way."""

    def __init__(
        self, count: int, steps: Steps, prompts: Sequence[float], outputs: Sequence[float]
    ) -> None:
        self._engines = [MixedDecoding(steps, prompts, outputs) for _ in range(count)]
        self._of = [0] * len(prompts)
        self.embed_s = steps.embed_s

    @property
    def busy_s(self) -> float:
        """In steps, on average."""
        return sum(engine.busy_s for engine in self._engines) / len(self._engines)

    @property
    def ended(self) -> int:
        """Answers that are done."""
        return sum(engine.ended for engine in self._engines)

    @property
    def read_s(self) -> float:
        """Of all prompts, from the step that begins each to its first token."""
        return sum(engine.read_s for engine in self._engines)

    @property
    def embedded_s(self) -> list[float]:
        """Of each request, as an engine has it."""
        return [self._engines[engine].embedded_s[at] for at, engine in enumerate(self._of)]

    @property
    def wait_s(self) -> list[float]:
        """Likewise."""
        return [self._engines[engine].wait_s[at] for at, engine in enumerate(self._of)]

    @property
    def first_token_s(self) -> list[float]:
        """Likewise."""
        return [self._engines[engine].first_token_s[at] for at, engine in enumerate(self._of)]

    @property
    def ended_s(self) -> list[float]:
        """Likewise."""
        return [self._engines[engine].ended_s[at] for at, engine in enumerate(self._of)]

    def enter(self, now: float, requests: Sequence[int]) -> list[Event]:
        """Requests whose prompts are complete."""
        events: list[Event] = []
        for request in requests:
            under_way = [engine.under_way for engine in self._engines]
            self._of[request] = under_way.index(min(under_way))
            engine = self._engines[self._of[request]]
            events += self._named(self._of[request], engine.enter(now, [request]))
        return events

    def on_event(self, now: float, what: int) -> list[Event]:
        """What an engine planned."""
        which = what % len(self._engines)
        return self._named(which, self._engines[which].on_event(now, what // len(self._engines)))

    def halt(self, now: float) -> None:
        """Other stages work on the chips."""
        for engine in self._engines:
            engine.halt(now)

    def go_on(self, now: float) -> list[Event]:
        """The chips are free again."""
        found: list[Event] = []
        for which, engine in enumerate(self._engines):
            found += self._named(which, engine.go_on(now))
        return found

    def _named(self, which: int, events: Sequence[Event]) -> list[Event]:
        return [(now, what * len(self._engines) + which) for now, what in events]


class MixedDecoding:
    """One running batch.

    Args:
        prompts: tokens to read of each request.
        outputs: tokens of each answer.

    Attributes:
        embedded_s: of each request, from entering until its question was embedded.
        wait_s: of each request, from then to the step that begins its prompt.
        first_token_s, ended_s: by the simulation's clock.
        ended: answers that are done.
        read_s: of all prompts, from the step that begins each to its first token.
        busy_s: in steps.
    """

    def __init__(self, steps: Steps, prompts: Sequence[float], outputs: Sequence[float]) -> None:
        self.embedded_s = [0.0] * len(prompts)
        self.wait_s = [0.0] * len(prompts)
        self.first_token_s = [math.nan] * len(prompts)
        self.ended_s = [0.0] * len(prompts)
        self.ended = 0
        self.read_s = 0.0
        self.busy_s = 0.0
        self._steps = steps
        self._left = list(prompts)
        self._prompts = prompts
        self._outputs = outputs
        self._since = [0.0] * len(prompts)
        self._asking: deque[int] = deque()
        self._joining: list[int] = []
        self._turn = False
        self._queue: deque[int] = deque()
        self._stops: list[tuple[int, int]] = []
        self._step = 0
        self._run: _Run | None = None
        self._ticket = 0
        self._halted_s: float | None = None

    @property
    def under_way(self) -> int:
        """Requests that wait, are read or written."""
        before = len(self._asking) + len(self._joining)
        return before + len(self._queue) + len(self._stops)

    def enter(self, now: float, requests: Sequence[int]) -> list[Event]:
        """Requests whose prompts are complete."""
        for request in requests:
            self._since[request] = now
            (self._asking if self._steps.embed_s else self._queue).append(request)
        if self._halted_s is not None:
            return []
        return self._begin(now) if self._run is None else self._cut(now)

    def on_event(self, now: float, what: int) -> list[Event]:
        """The end of a run; nothing, where it was planned anew since."""
        if what != self._ticket or self._halted_s is not None:
            return []
        self._end(now)
        return self._begin(now)

    def halt(self, now: float) -> None:
        """Other stages work on the chips."""
        self._halted_s = now

    def go_on(self, now: float) -> list[Event]:
        """The chips are free again."""
        assert self._halted_s is not None, "it was halted"
        passed_s, self._halted_s = now - self._halted_s, None
        if self._run is None:
            return self._begin(now)
        self._run.began_s += passed_s
        return self._cut(now) or [self._planned(self._run)]

    def _cut(self, now: float) -> list[Event]:
        """Lets a request that has come in behind the step under way."""
        run = self._run
        assert run is not None, "there is something to cut"
        joins = bool(self._queue) and not run.read and len(self._stops) < self._steps.slots
        if not (self._asking or joins):
            return []
        steps = max(1, math.ceil((now - run.began_s) / run.step_s - _NOTHING))
        if steps >= run.steps:
            return []
        run.steps = steps
        return [self._planned(run)]

    def _planned(self, run: _Run) -> Event:
        self._ticket += 1
        return (run.ends_s, self._ticket)

    def _begin(self, now: float) -> list[Event]:
        """Plans the next run."""
        run = self._run = self._next(now)
        # Its passages come while that lasts: its prompt is there for the next one.
        self._queue.extend(self._joining)
        self._joining.clear()
        if run is None:
            return self._begin(now) if self._queue else []
        for request in run.read:
            if self._left[request] == self._prompts[request]:
                self.wait_s[request] = now - self._since[request]
        return [self._planned(run)]

    def _next(self, now: float) -> _Run | None:
        steps, answers = self._steps, len(self._stops)
        # Questions and steps take turns where there are both.
        if self._asking and not (self._turn and (answers or self._queue)):
            return _Run(now, steps.embed_s, 1, asked=self._asking.popleft())
        until = self._stops[0][0] - self._step if answers else 0
        room = steps.slots - answers
        if not self._queue or not room:
            until = 1 if self._asking or (self._joining and room) else until
            return _Run(now, steps.alone_s[answers - 1], until) if answers else None
        read = self._taken(room, steps.piece_tokens if answers else steps.whole_tokens)
        total = sum(read.values())
        if not answers:
            return _Run(now, total * steps.read_s, 1, read)
        whole = 1
        if len(read) == 1 and not self._asking:
            left = self._left[self._queue[0]]
            whole = max(1, min(until, math.floor(left / steps.piece_tokens + _NOTHING)))
        return _Run(now, steps.writing_s(answers, total), whole, read)

    def _taken(self, room: int, budget: float) -> dict[int, float]:
        """Tokens of the next step by request, the oldest first."""
        read: dict[int, float] = {}
        for request in itertools.islice(self._queue, room):
            if budget <= _NOTHING:
                break
            read[request] = min(self._left[request], budget)
            budget -= read[request]
        return read

    def _end(self, now: float) -> None:
        run, self._run = self._run, None
        assert run is not None, "a run that was planned"
        self.busy_s += run.steps * run.step_s
        self._turn = run.asked is not None
        if run.asked is not None:
            self.embedded_s[run.asked] = now - self._since[run.asked]
            self._since[run.asked] = now
            self._joining.append(run.asked)
            return
        self._step += run.steps
        for request, tokens in run.read.items():
            self._left[request] -= tokens * run.steps
            if self._left[request] > _NOTHING:
                continue
            self._queue.popleft()
            self._first_token(now, request)
        while self._stops and self._stops[0][0] <= self._step:
            self.ended_s[heapq.heappop(self._stops)[1]] = now
            self.ended += 1

    def _first_token(self, now: float, request: int) -> None:
        self.first_token_s[request] = now
        self.read_s += now - self._since[request] - self.wait_s[request]
        more = max(0, round(self._outputs[request]) - 1)
        heapq.heappush(self._stops, (self._step + more, request))
