from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from ragschema.errors import Cancelled, DeadlineExceeded, Overloaded
from retrieval_node.backends.base import Checkpoint
from retrieval_node.workers import SearchPool


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def _until(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_answers_and_counts(gate: threading.Event) -> None:
    pool = SearchPool(1, 2)
    tasks = [asyncio.ensure_future(pool.run(lambda _: gate.wait(10), None)) for _ in range(3)]
    await _until(lambda: (pool.running, pool.waiting) == (1, 2))
    with pytest.raises(Overloaded) as caught:
        await pool.run(lambda _: True, None)
    assert caught.value.retry_after_s > 0
    gate.set()
    answers = await asyncio.gather(*tasks)
    assert all(a.answer for a in answers)
    assert answers[2].queue_us > 0
    await _until(lambda: (pool.running, pool.waiting) == (0, 0))
    pool.close()


async def test_queued_work_of_a_caller_that_left_never_starts(gate: threading.Event) -> None:
    pool = SearchPool(1, 4)
    first = asyncio.ensure_future(pool.run(lambda _: gate.wait(10), None))
    started: list[bool] = []
    second = asyncio.ensure_future(pool.run(lambda _: started.append(True), None))
    await _until(lambda: pool.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await first
    await _until(lambda: pool.running == 0)
    assert not started
    pool.close()


async def test_running_work_stops_at_its_next_checkpoint() -> None:
    pool = SearchPool(1, 1)
    ended: list[type[BaseException]] = []
    running = threading.Event()

    def work(checkpoint: Checkpoint) -> None:
        running.set()
        try:
            while True:
                checkpoint()
                time.sleep(0.002)
        except Cancelled as error:
            ended.append(type(error))
            raise

    task = asyncio.ensure_future(pool.run(work, None))
    await _until(running.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: pool.running == 0)
    assert ended == [Cancelled]
    pool.close()


async def test_a_deadline_drops_queued_and_running_work(gate: threading.Event) -> None:
    pool = SearchPool(1, 4)
    started: list[bool] = []
    first = asyncio.ensure_future(pool.run(lambda _: gate.wait(10), None))
    late = asyncio.ensure_future(pool.run(lambda _: started.append(True), time.monotonic() + 0.01))
    await asyncio.sleep(0.05)
    gate.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    assert not started
    pool.close()


async def test_errors_of_the_work_reach_the_caller() -> None:
    pool = SearchPool(2, 1)

    def work(_: Checkpoint) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await pool.run(work, None)
    await _until(lambda: pool.running == 0)
    pool.close()
