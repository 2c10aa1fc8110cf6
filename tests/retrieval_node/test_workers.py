from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NotFound,
    Overloaded,
    RagrigError,
    Unavailable,
)
from ragschema.types import SearchBatch, SearchResult, SnapshotId
from ragschema.wire.raw import read_reply
from ragschema.wire.searches import result_from_parts
from retrieval_node.cancel import Cancellation
from retrieval_node.coalesce import CoalesceLimits
from retrieval_node.counters import Counters
from retrieval_node.workers import SearchPool

SHARDS: Any = object()
BATCH = SearchBatch(
    SnapshotId("docs", 1), (0,), np.zeros((1, 2), np.float32), np.zeros((1, 1), np.int32), 1
)


def asking(*values: float, refine_k: int | None = None) -> SearchBatch:
    """A batch whose answer's row ids are ``values``."""
    n = len(values)
    queries = np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)
    return replace(BATCH, queries=queries, list_ids=np.zeros((n, 1), np.int32), refine_k=refine_k)


class Kernel:
    """Echoes the queries; each call waits for the gate.

    Attributes:
        calls: the queries of each, by their first components.
        refuse: raised by a call with that query in it.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[list[float]] = []
        self.refuse: dict[float, Exception] = {}
        self.stopped: list[type[BaseException]] = []

    def __call__(self, _: Any, batch: SearchBatch, cancel: Cancellation) -> SearchResult:
        values = batch.queries[:, 0].tolist()
        self.calls.append(values)
        try:
            while not self.gate.wait(0.002):
                cancel.check()
        except RagrigError as error:
            self.stopped.append(type(error))
            raise
        for value in values:
            if value in self.refuse:
                raise self.refuse[value]
        n, k = len(values), batch.k
        rows = np.repeat(batch.queries[:, :1].astype(np.int64), k, axis=1)
        return SearchResult(np.zeros((n, k), np.float32), rows, np.full(n, k, np.int32), 9)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.gate.set()


@pytest.fixture
def make_pool(kernel: Kernel) -> Iterator[Callable[..., SearchPool]]:
    pools = []

    def make(workers: int = 1, max_waiting: int = 16, **rest: Any) -> SearchPool:
        pools.append(SearchPool(kernel, workers, max_waiting, **rest))
        return pools[-1]

    yield make
    kernel.gate.set()
    for pool in pools:
        pool.close()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def start(pool: SearchPool, batch: SearchBatch, deadline_s: float | None = None) -> Any:
    return asyncio.ensure_future(pool.run(SHARDS, batch, deadline_s))


def rows_of(reply: bytes) -> list[int]:
    return list(map(int, result_from_parts(read_reply(reply)).row_ids[:, 0]))


async def test_answers_and_counts(make_pool: Callable[..., SearchPool], kernel: Kernel) -> None:
    pool = make_pool(max_waiting=2)
    tasks = []
    for value in range(3):
        tasks.append(start(pool, asking(value)))
        await _until(lambda: len(kernel.calls) == 1)
    await _until(lambda: (pool.running, pool.waiting) == (1, 2))
    with pytest.raises(Overloaded) as caught:
        await pool.run(SHARDS, asking(9), None)
    assert caught.value.retry_after_s > 0
    kernel.gate.set()
    replies = await asyncio.gather(*tasks)
    assert [rows_of(r) for r in replies] == [[0], [1], [2]]
    stats = [read_reply(r).stats for r in replies]
    assert stats[2].queue_us > 0
    await _until(lambda: (pool.running, pool.waiting) == (0, 0))


async def test_what_waits_is_put_together(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    counters = Counters()
    pool = make_pool(counters=counters)
    first = start(pool, asking(0))
    await _until(lambda: len(kernel.calls) == 1)
    others = [asking(1), asking(2, 3, refine_k=4), asking(4, 5), asking(6, refine_k=4)]
    tasks = [start(pool, batch) for batch in others]
    await _until(lambda: pool.waiting == 4)
    kernel.gate.set()
    replies = await asyncio.gather(first, *tasks)
    assert [rows_of(r) for r in replies] == [[0], [1], [2, 3], [4, 5], [6]]
    assert kernel.calls == [[0], [1, 4, 5], [2, 3, 6]]
    assert [read_reply(r).stats.batch_queries for r in replies] == [1, 3, 3, 3, 3]
    totals = counters.totals
    assert (totals.searches, totals.queries, totals.batches) == (5, 7, 3)
    assert totals.queue_us > 0


async def test_a_batch_stays_within_its_limit(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool(limits=CoalesceLimits(max_batch=3))
    first = start(pool, asking(0))
    await _until(lambda: len(kernel.calls) == 1)
    sizes = (2, 2, 1, 5)
    values = iter(itertools.count(1))
    tasks = [start(pool, asking(*itertools.islice(values, size))) for size in sizes]
    await _until(lambda: pool.waiting == 4)
    kernel.gate.set()
    await asyncio.gather(first, *tasks)
    assert kernel.calls == [[0], [1, 2, 5], [3, 4], [6, 7, 8, 9, 10]]


async def test_an_idle_worker_waits_for_company_if_told_to(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    kernel.gate.set()
    limits = CoalesceLimits(max_batch=2, max_wait_us=1_000_000)
    pool = make_pool(limits=limits)
    await asyncio.gather(start(pool, asking(1)), start(pool, asking(2)))
    assert kernel.calls == [[1, 2]]
    alone = make_pool(limits=CoalesceLimits(max_wait_us=2000))
    assert rows_of(await alone.run(SHARDS, asking(3), None)) == [3]


async def test_queued_work_of_a_caller_that_left_never_starts(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool()
    first = start(pool, asking(0))
    await _until(lambda: len(kernel.calls) == 1)
    second, third = start(pool, asking(1)), start(pool, asking(2))
    await _until(lambda: pool.waiting == 2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    kernel.gate.set()
    await asyncio.gather(first, third)
    await _until(lambda: pool.running == 0)
    assert kernel.calls == [[0], [2]]


async def test_a_kernel_call_stops_only_when_all_of_its_callers_left(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool(limits=CoalesceLimits(max_batch=2, max_wait_us=1_000_000))
    one, two = start(pool, asking(1)), start(pool, asking(2))
    await _until(lambda: kernel.calls == [[1, 2]])
    one.cancel()
    await asyncio.sleep(0.03)
    assert not kernel.stopped
    two.cancel()
    await _until(lambda: kernel.stopped == [Cancelled])
    await _until(lambda: pool.running == 0)
    await asyncio.gather(one, two, return_exceptions=True)


async def test_those_who_stay_get_their_answer(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool(limits=CoalesceLimits(max_batch=2, max_wait_us=1_000_000))
    one, two = start(pool, asking(1)), start(pool, asking(2))
    await _until(lambda: kernel.calls == [[1, 2]])
    one.cancel()
    kernel.gate.set()
    assert rows_of(await two) == [2]
    await asyncio.gather(one, return_exceptions=True)


async def test_a_deadline_drops_queued_and_running_work(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool()
    soon_s = time.monotonic() + 0.05
    with pytest.raises(DeadlineExceeded):
        await pool.run(SHARDS, asking(0), soon_s)
    assert kernel.stopped == [DeadlineExceeded]
    first = start(pool, asking(1))
    await _until(lambda: len(kernel.calls) == 2)
    late = start(pool, asking(2), time.monotonic() + 0.01)
    await asyncio.sleep(0.05)
    kernel.gate.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    assert kernel.calls == [[0], [1]]


async def test_the_latest_deadline_of_a_batch_counts(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool(limits=CoalesceLimits(max_batch=2, max_wait_us=1_000_000))
    early = start(pool, asking(1), time.monotonic() + 0.1)
    patient = start(pool, asking(2))
    await _until(lambda: kernel.calls == [[1, 2]])
    await asyncio.sleep(0.15)
    assert not kernel.stopped
    kernel.gate.set()
    assert rows_of(await patient) == [2]
    await early  # late, yet better than nothing


async def test_an_error_hits_only_its_own_request(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    kernel.refuse = {2.0: NotFound("gone")}
    kernel.gate.set()
    pool = make_pool(limits=CoalesceLimits(max_batch=3, max_wait_us=1_000_000))
    tasks = [start(pool, asking(value)) for value in (1, 2, 3)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert kernel.calls[0] == [1, 2, 3]
    assert isinstance(answers[1], NotFound)
    assert [rows_of(a) for a in (answers[0], answers[2]) if isinstance(a, bytes)] == [[1], [3]]


async def test_a_defect_becomes_an_internal_error_and_the_pool_goes_on(
    make_pool: Callable[..., SearchPool], kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.refuse = {1.0: ValueError("a secret")}
    kernel.gate.set()
    pool = make_pool()
    with pytest.raises(InternalError) as caught:
        await pool.run(SHARDS, asking(1), None)
    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text
    assert rows_of(await pool.run(SHARDS, asking(2), None)) == [2]


async def test_retry_after_grows_with_the_queue(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    async def refused(pool: SearchPool, waiting: int) -> float:
        kernel.gate.clear()
        calls = len(kernel.calls)
        tasks = [start(pool, asking(0, refine_k=1))]
        await _until(lambda: len(kernel.calls) == calls + 1)
        tasks += [start(pool, asking(0, refine_k=2)) for _ in range(waiting)]
        await _until(lambda: pool.waiting == waiting)
        await asyncio.sleep(0.05)  # the first call takes that long
        with pytest.raises(Overloaded) as caught:
            await pool.run(SHARDS, asking(0), None)
        kernel.gate.set()
        await asyncio.gather(*tasks)
        return caught.value.retry_after_s

    short, long = make_pool(max_waiting=2), make_pool(max_waiting=40)
    for pool in (short, long):  # both learn how long a call takes
        await refused(pool, pool._max_waiting)
    assert await refused(long, 40) > await refused(short, 2)


async def test_the_threads_are_pinned_and_nobody_else() -> None:
    mine = os.sched_getaffinity(0)
    cpu = max(mine)
    seen: list[set[int]] = []

    def search(_: Any, batch: SearchBatch, cancel: Cancellation) -> SearchResult:
        seen.append(os.sched_getaffinity(0))
        return SearchResult(
            np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64), np.ones(1, np.int32), 1
        )

    pool = SearchPool(search, 1, 1, cpu=cpu)
    await pool.run(SHARDS, BATCH, None)
    pool.close()
    assert seen == [{cpu}]
    assert os.sched_getaffinity(0) == mine


async def test_closing_turns_away_what_waits_and_what_comes(
    make_pool: Callable[..., SearchPool], kernel: Kernel
) -> None:
    pool = make_pool()
    first = start(pool, asking(1))
    await _until(lambda: len(kernel.calls) == 1)
    second = start(pool, asking(2))
    await _until(lambda: pool.waiting == 1)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(Unavailable):
        await second
    kernel.gate.set()
    assert rows_of(await first) == [1]
    await closing
    with pytest.raises(Unavailable):
        await pool.run(SHARDS, asking(3), None)
