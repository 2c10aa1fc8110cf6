"""The owner of a device: one thread, to which every role of a node gives its work.

Work comes as *jobs*, each a row of units: an engine step, a pass of an encoder, a pass of
the reranker, a batch of an index scan. After every unit the device chooses again, by
``fair.FairShares`` between lanes, in order of arrival within one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llm_node.device.fair import Account, FairShares
from ragschema.errors import Overloaded, Unavailable

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Done(Generic[_T]):
    """What a job came to, how long it waited for turns and how long it had them."""

    value: _T
    waited_us: int
    ran_us: int


@dataclass(frozen=True)
class LaneUsage:
    """What a lane had of its device since the start.

    Attributes:
        name: the roles behind it, such as ``generate+rewrite``.
        weight: its share, in proportion to the other lanes'.
        waited_s: time that units which could have run waited for their turn, summed.
        longest_wait_s: of one unit.
    """

    device: str
    name: str
    weight: float
    units: int
    busy_s: float
    waited_s: float
    longest_wait_s: float


@dataclass(eq=False)
class Job:
    """A row of units.

    Attributes:
        step: runs one unit and says whether there is another.
        dropped: called in the loop that closes the device, when it never ended.
        ready_s: since when its next unit could run.
    """

    step: Callable[[], bool]
    dropped: Callable[[], None] | None
    ready_s: float
    started: bool = False
    withdrawn: bool = False


class Lane:
    """One role's way to a device; made by ``Device.lane``."""

    def __init__(self, device: Device, name: str, weight: float, max_waiting: int) -> None:
        self.name = name
        self.account = Account(weight)
        self._device = device
        self._capacity = 1 + max_waiting
        self._jobs: deque[Job] = deque()
        self._units = 0
        self._busy_s = self._waited_s = self._longest_wait_s = 0.0

    @property
    def running(self) -> int:
        """Jobs of which a unit was begun."""
        return sum(job.started for job in tuple(self._jobs))

    @property
    def waiting(self) -> int:
        """Jobs that were not begun."""
        return sum(not job.started for job in tuple(self._jobs))

    def ask(self, step: Callable[[], bool], dropped: Callable[[], None] | None = None) -> Job:
        """Queues a job, from any thread; ``step`` is called in the device's.

        Raises:
            Overloaded: too many jobs of this lane wait.
            Unavailable: the device was closed.
        """
        return self._device.accept(self, step, dropped)

    async def run(self, units: Generator[None, None, _T]) -> Done[_T]:
        """Runs a generator to its end, from one ``yield`` to the next in a turn of its own.

        Being cancelled withdraws it: what has not begun never runs.

        Raises:
            Overloaded, Unavailable: see ``ask``.
            Exception: what the generator raises.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()
        ran_s = 0.0

        def step() -> bool:
            nonlocal ran_s
            started_s = self._device.clock()
            result: _T | None = None
            failure: Exception | None = None
            try:
                next(units)
            except StopIteration as end:
                result = end.value
            except Exception as error:  # noqa: BLE001 - it belongs to the caller
                failure = error
            else:
                ran_s += self._device.clock() - started_s
                return True
            ran_s += self._device.clock() - started_s
            with suppress(RuntimeError):  # the loop ended before the device
                loop.call_soon_threadsafe(_settle, done, result, failure)
            return False

        asked_s = self._device.clock()
        closed = Unavailable("the node shuts down")
        job = self.ask(step, lambda: _settle(done, None, closed))
        try:
            value = await done
        finally:
            self._device.withdraw(self, job)
        waited_s = max(0.0, self._device.clock() - asked_s - ran_s)
        return Done(value, int(waited_s * 1e6), int(ran_s * 1e6))

    def usage(self) -> LaneUsage:
        """Numbers read while a unit may run: each is right."""
        return LaneUsage(
            self._device.name, self.name, self.account.weight, self._units,
            self._busy_s, self._waited_s, self._longest_wait_s,
        )  # fmt: skip

    # What follows is for the device, which holds its lock meanwhile.

    @property
    def head(self) -> Job | None:
        return self._jobs[0] if self._jobs else None

    def push(self, job: Job) -> None:
        if len(self._jobs) >= self._capacity:
            raise Overloaded(
                f"{len(self._jobs)} calls of {self.name} run or wait already",
                hint="try again later, or raise max_waiting",
            )
        self._jobs.append(job)

    def drop(self, job: Job) -> None:
        with suppress(ValueError):
            self._jobs.remove(job)

    def take_all(self) -> list[Job]:
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def began(self, job: Job, now_s: float) -> None:
        job.started = True
        waited_s = now_s - job.ready_s
        self._waited_s += waited_s
        self._longest_wait_s = max(self._longest_wait_s, waited_s)

    def ended(self, used_s: float) -> None:
        self._units += 1
        self._busy_s += used_s


def once(work: Callable[..., _T], *args: Any) -> Generator[None, None, _T]:
    """A job of one unit, for ``Lane.run``."""
    return work(*args)
    yield


class Device:
    """Runs the jobs of its lanes, one unit at a time; start() and close() once each.

    Args:
        prepare: called once in the device's thread, before any unit.
        clock: seconds; what units are charged with.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.clock = clock
        self._prepare = prepare
        self._shares = FairShares()
        self._lanes: list[Lane] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def lane(self, name: str, weight: float = 1.0, max_waiting: int = 128) -> Lane:
        """A further lane.

        Args:
            weight: above 0, its share in proportion to the other lanes'.
            max_waiting: jobs that may wait behind the running one.
        """
        assert weight > 0, "shares are checked where they are told"
        lane = Lane(self, name, weight, max_waiting)
        with self._changed:
            self._lanes.append(lane)
        return lane

    def usage(self) -> list[LaneUsage]:
        """Of every lane."""
        return [lane.usage() for lane in self._lanes]

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name=f"device-{self.name}", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Ends behind the running unit; jobs that wait are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        for job in [job for lane in self._lanes for job in lane.take_all()]:
            if job.dropped is not None:
                job.dropped()

    def accept(
        self, lane: Lane, step: Callable[[], bool], dropped: Callable[[], None] | None
    ) -> Job:
        """See ``Lane.ask``."""
        with self._changed:
            if self._closing:
                raise Unavailable("the node shuts down")
            idle = lane.head is None
            job = Job(step, dropped, self.clock())
            lane.push(job)
            if idle:
                self._shares.arrive(lane.account)
            self._changed.notify()
        return job

    def withdraw(self, lane: Lane, job: Job) -> None:
        """Takes a job back; a unit under way ends first."""
        with self._changed:
            job.withdrawn = True
            lane.drop(job)

    def run_next(self) -> bool:
        """Runs the next unit in the calling thread; False: nobody wants the device."""
        with self._changed:
            wanting = {lane.account: lane for lane in self._lanes if lane.head is not None}
            account = self._shares.choose(wanting)
            if account is None:
                self._shares.rest(lane.account for lane in self._lanes)
                return False
            lane = wanting[account]
            job = lane.head
            assert job is not None, "only lanes with jobs are chosen"
            started_s = self.clock()
            lane.began(job, started_s)
        more = self._step(lane, job)
        with self._changed:
            job.ready_s = self.clock()
            lane.ended(job.ready_s - started_s)
            self._shares.charge(account, job.ready_s - started_s)
            if not more or job.withdrawn:
                lane.drop(job)
        return True

    def _step(self, lane: Lane, job: Job) -> bool:
        try:
            return job.step()
        except Exception:  # noqa: BLE001 - the other roles go on
            _LOG.exception("a unit of %s failed", lane.name)
            return False

    def _run(self) -> None:
        """The device's thread."""
        if self._prepare is not None:
            self._prepare()
        while not self._closing:
            if self.run_next():
                continue
            with self._changed:
                while not self._closing and all(lane.head is None for lane in self._lanes):
                    self._changed.wait()


def _settle(done: asyncio.Future[_T], result: Any, failure: Exception | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)
