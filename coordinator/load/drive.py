"""Sends the requests of a plan: at their times, or as earlier ones are answered.

In an open loop every request has a planned arrival, and keeps it however slow the endpoint is:
its latency counts from there, so a stall shows in every request that it held up, also in those
that could only be sent late.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from coordinator.load.client import Failure, LoadClient, Reply
from coordinator.load.prompts import LoadRequest
from coordinator.load.workload import LoadPlan
from ragschema.errors import InvalidInput, UpstreamError


@dataclass(frozen=True)
class Sending:
    """How requests are sent.

    Attributes:
        model: that each asks for.
        max_in_flight: of an open loop: requests under way at once, beyond which they wait; of
            a closed loop: requests that are kept under way.
        patience_s: a request that could not be sent for so long is given up.
        duration_s: no request is sent, or planned, after so long; until then a closed loop goes
            round the plan's requests. None: each of them is sent once.
        extra: keys laid over each request's body.
    """

    model: str
    max_in_flight: int
    patience_s: float
    duration_s: float | None = None
    extra: tuple[tuple[str, object], ...] = ()

    def body(self, request: LoadRequest) -> bytes:
        """The JSON of a chat completion."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": request.messages(),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
        }
        if request.output_tokens is not None:
            body["max_tokens"] = request.output_tokens
        return orjson.dumps(body | dict(self.extra))


@dataclass(frozen=True)
class Outcome:
    """What became of one request; seconds since the load began.

    Attributes:
        index: its place in the plan.
        planned_s: when it was to be sent; in a closed loop, when it was.
        reply: None: it was given up without being sent.
    """

    index: int
    planned_s: float
    reply: Reply | None

    @property
    def failure(self) -> Failure | None:
        if self.reply is None:
            return Failure("too late", "could not be sent: too many were under way")
        return self.reply.failure


@dataclass(frozen=True)
class LoadRun:
    """A load that was run.

    Attributes:
        started_s: of ``time.perf_counter``: what ``planned_s`` counts from.
        wall_s: until the last request ended.
        cpu_s: processor time that sending and reading took here.
        planned: requests that should have been sent; fewer outcomes where it was stopped.
        outcomes: by index.
    """

    started_s: float
    wall_s: float
    cpu_s: float
    planned: int
    stopped: bool
    outcomes: tuple[Outcome, ...]


#: Told after every request: what became of it, and how many are under way.
Told = Callable[[Outcome, int], None]


async def warm_up(client: LoadClient, plan: LoadPlan, sending: Sending, count: int) -> None:
    """Sends some requests one by one and forgets them.

    Raises:
        UpstreamError: none of them was answered, so that a load would say nothing.
    """
    replies: list[Reply] = []
    for request in itertools.islice(itertools.cycle(plan.requests), count):
        replies.append(await client.ask(sending.body(request)))
        if replies[-1].failure is not None and replies[-1].failure.kind == "cancelled":
            raise asyncio.CancelledError
    failures = [r.failure for r in replies if r.failure is not None]
    if failures and len(failures) == count:
        raise UpstreamError(
            f"the endpoint answers no request: {failures[0].kind}: {failures[0].detail}",
            hint="check --url, --model and the key; --warmup 0 sends the load nevertheless",
        )


async def run_load(client: LoadClient, plan: LoadPlan, sending: Sending, told: Told) -> LoadRun:
    """Runs the whole plan; an interrupt stops it, and what came back so far is returned.

    Raises:
        InvalidInput: the plan has no requests within the duration.
    """
    driver = _Driver(client, plan, sending, told)
    if not driver.planned:
        raise InvalidInput("the load has no requests", hint="give it more time, or a higher rate")
    cpu_s = time.process_time()
    task = asyncio.ensure_future(driver.run())
    stopped = False
    with _interrupts(task):
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            stopped = True
    wall_s = time.perf_counter() - driver.started_s
    endless = driver.times_s is None and sending.duration_s is not None
    return LoadRun(
        driver.started_s,
        wall_s,
        time.process_time() - cpu_s,
        len(driver.outcomes) if endless else driver.planned,
        stopped,
        tuple(sorted(driver.outcomes, key=lambda outcome: outcome.index)),
    )


@contextmanager
def _interrupts(task: asyncio.Task[None]) -> Iterator[None]:
    """The first Ctrl-C cancels the task; the next one is Python's own again."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        task.cancel()

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (NotImplementedError, ValueError, RuntimeError):
        yield  # not in the main thread: whoever runs us handles signals
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


class _Driver:
    """One run of a plan."""

    def __init__(self, client: LoadClient, plan: LoadPlan, sending: Sending, told: Told) -> None:
        self._client, self._requests, self._sending, self._told = (
            client,
            plan.requests,
            sending,
            told,
        )
        self.times_s: list[float] | None = None
        self.planned = len(plan.requests)
        if plan.times_s is not None:
            limit_s = sending.duration_s
            self.times_s = [t for t in plan.times_s.tolist() if limit_s is None or t <= limit_s]
            self.planned = len(self.times_s)
        self.outcomes: list[Outcome] = []
        self._in_flight = 0
        self.started_s = time.perf_counter()

    async def run(self) -> None:
        """Until the last request has ended."""
        if self.times_s is None:
            await self._closed_loop()
        else:
            await self._open_loop(self.times_s)

    async def _open_loop(self, times_s: list[float]) -> None:
        slots = asyncio.Semaphore(self._sending.max_in_flight)
        self.started_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for index, planned_s in enumerate(times_s):
                # Made ready before its time, so that long prompts do not make it late.
                body = self._sending.body(self._requests[index])
                await self._until(planned_s)
                await slots.acquire()
                if self._now_s() - planned_s > self._sending.patience_s:
                    slots.release()
                    self._note(Outcome(index, planned_s, None))
                    continue
                group.create_task(self._send(index, planned_s, body, slots))

    async def _closed_loop(self) -> None:
        self.started_s = time.perf_counter()
        endless = self._sending.duration_s is not None
        numbers = itertools.count() if endless else iter(range(self.planned))
        async with asyncio.TaskGroup() as group:
            for _ in range(self._sending.max_in_flight):
                group.create_task(self._take_turns(numbers))

    async def _take_turns(self, numbers: Iterator[int]) -> None:
        limit_s = self._sending.duration_s
        for index in numbers:
            if limit_s is not None and self._now_s() > limit_s:
                return
            body = self._sending.body(self._requests[index % len(self._requests)])
            await self._send(index, self._now_s(), body, None)

    async def _until(self, planned_s: float) -> None:
        await asyncio.sleep(max(0.0, planned_s - self._now_s()))

    async def _send(
        self, index: int, planned_s: float, body: bytes, slots: asyncio.Semaphore | None
    ) -> None:
        self._in_flight += 1
        try:
            reply = await self._client.ask(body)
        finally:
            self._in_flight -= 1
            if slots is not None:
                slots.release()
        self._note(Outcome(index, planned_s, reply))
        if reply.failure is not None and reply.failure.kind == "cancelled":
            raise asyncio.CancelledError

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._told(outcome, self._in_flight)

    def _now_s(self) -> float:
        return time.perf_counter() - self.started_s
