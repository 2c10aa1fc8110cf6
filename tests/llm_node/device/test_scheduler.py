"""The device: units by a clock that only they move, in the test's own thread or the device's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field

import pytest

from llm_node.device.scheduler import Device, Lane, once
from ragschema.errors import Overloaded, Unavailable


@dataclass
class _Work:
    """Fake units: each writes its name down and takes its time."""

    now_s: float = 0.0
    done: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def unit(self, name: str, used_s: float, more: Callable[[], bool] = lambda: True) -> bool:
        self.now_s += used_s
        self.done.append(name)
        return more()

    def forever(self, name: str, used_s: float) -> Callable[[], bool]:
        return lambda: self.unit(name, used_s)


def _turns(device: Device, turns: int) -> None:
    for _ in range(turns):
        assert device.run_next()


def test_saturated_lanes_have_their_shares_to_the_unit() -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)
    for name, weight, unit_s in (("generate", 4.0, 0.5), ("embed", 1.0, 0.25), ("rerank", 1.0, 1)):
        device.lane(name, weight).ask(work.forever(name, unit_s))
    _turns(device, 1300)
    usage = {lane.name: lane for lane in device.usage()}
    assert work.now_s == 600.0
    assert {name: lane.busy_s for name, lane in usage.items()} == {
        "generate": 400.0, "embed": 100.0, "rerank": 100.0,
    }  # fmt: skip
    assert [usage[name].units for name in ("generate", "embed", "rerank")] == [800, 400, 100]


def test_a_pass_that_comes_waits_for_one_step() -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)
    embed = device.lane("embed")

    def step() -> bool:
        if len(work.done) == 50:
            embed.ask(lambda: work.unit("pass", 0.25, lambda: False))
        return work.unit("step", 1.0)

    device.lane("generate").ask(step)
    _turns(device, 53)
    assert work.done[50:] == ["step", "pass", "step"]
    assert embed.usage().longest_wait_s == 1.0


def test_waits_are_counted_from_when_a_unit_could_run() -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)
    lanes = [device.lane(name) for name in "ab"]
    for lane in lanes:
        lane.ask(work.forever(lane.name, 2.0))
    _turns(device, 4)
    assert work.done == ["a", "b", "a", "b"]
    assert [lane.usage().waited_s for lane in lanes] == [2.0, 4.0]
    assert [lane.usage().longest_wait_s for lane in lanes] == [2.0, 2.0]


def test_a_job_keeps_its_place_until_it_ends() -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)
    lane = device.lane("rerank")
    lane.ask(lambda: work.unit("first", 1.0, lambda: len(work.done) < 3))
    lane.ask(lambda: work.unit("second", 1.0, lambda: False))
    assert (lane.running, lane.waiting) == (0, 2)
    _turns(device, 1)
    assert (lane.running, lane.waiting) == (1, 1)
    _turns(device, 3)
    assert work.done == ["first"] * 3 + ["second"]
    assert not device.run_next()
    assert (lane.running, lane.waiting) == (0, 0)


def test_idle_lanes_cost_nothing() -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)
    for number in range(5):
        device.lane(f"idle-{number}", 100.0)
    device.lane("generate", 0.01).ask(work.forever("step", 1.0))
    _turns(device, 20)
    assert work.now_s == 20.0
    assert work.done == ["step"] * 20


def test_a_failing_unit_ends_its_own_job_alone(caplog: pytest.LogCaptureFixture) -> None:
    work = _Work()
    device = Device("cpu", clock=work.clock)

    def broken() -> bool:
        raise ValueError("out of luck")

    lane = device.lane("embed")
    lane.ask(broken)
    lane.ask(lambda: work.unit("next", 1.0, lambda: False))
    device.lane("generate").ask(work.forever("step", 1.0))
    _turns(device, 4)
    assert work.done.count("next") == 1
    assert work.done.count("step") == 2
    assert "a unit of embed failed" in caplog.text


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    one = Device("cpu")
    one.start()
    yield one
    await one.close()


async def test_run_gives_result_and_times(device: Device) -> None:
    threads = []

    def units() -> Generator[None, None, str]:
        for _ in range(3):
            threads.append(threading.current_thread().name)
            yield
        return "done"

    done = await device.lane("rerank").run(units())
    assert done.value == "done"
    assert threads == ["device-cpu"] * 3
    assert done.waited_us >= 0
    assert done.ran_us >= 0
    assert device.usage()[0].units == 4


async def test_failures_reach_the_caller_and_nobody_else(device: Device) -> None:
    lane = device.lane("embed")

    def broken() -> int:
        raise ValueError("out of luck")

    with pytest.raises(ValueError, match="out of luck"):
        await lane.run(once(broken))
    assert (await lane.run(once(int, "7"))).value == 7
    assert (lane.running, lane.waiting) == (0, 0)


async def test_a_cancelled_job_never_runs(device: Device) -> None:
    """A deadline that passes cancels what waits for its turn."""
    gate, ran = threading.Event(), []
    held = asyncio.create_task(device.lane("generate").run(once(gate.wait, 20)))
    await asyncio.sleep(0)
    lane = device.lane("embed")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await lane.run(once(ran.append, 1))
    assert lane.waiting == 0
    gate.set()
    await held
    await lane.run(once(int))
    assert not ran


async def test_a_cancelled_job_ends_behind_its_unit(device: Device) -> None:
    lane, gate, begun = device.lane("rerank"), threading.Event(), []

    def units() -> Generator[None, None, None]:
        for _ in range(5):
            begun.append(1)
            gate.wait(20)
            yield

    task = asyncio.create_task(lane.run(units()))
    async with asyncio.timeout(20):
        while not begun:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (lane.running, lane.waiting) == (0, 0)
    gate.set()
    await lane.run(once(int))
    assert len(begun) == 1


async def test_lanes_are_bounded(device: Device) -> None:
    gate = threading.Event()
    lane: Lane = device.lane("index_scan", max_waiting=1)
    calls = [asyncio.create_task(lane.run(once(gate.wait, 20))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls of index_scan"):
        await lane.run(once(int))
    gate.set()
    await asyncio.gather(*calls)


async def test_closing_answers_those_who_wait() -> None:
    device, gate = Device("cpu"), threading.Event()
    device.start()
    lane = device.lane("embed")
    calls = [asyncio.create_task(lane.run(once(gate.wait, 20))) for _ in range(2)]
    async with asyncio.timeout(20):
        while not lane.running:
            await asyncio.sleep(0.001)
    closing = asyncio.create_task(device.close())
    await asyncio.sleep(0.01)
    gate.set()
    await closing
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, Unavailable)
    with pytest.raises(Unavailable, match="shuts down"):
        await lane.run(once(int))
