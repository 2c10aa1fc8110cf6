"""The batcher: who shares a call with whom, and how each leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from coordinator.batcher import Batcher
from coordinator.metrics import Metrics
from ragschema.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    Overloaded,
    RagrigError,
    Unavailable,
)
from ragschema.rig import BatchConfig
from ragschema.types import CallContext
from tests.coordinator.making import context
from tests.coordinator.waiting import until


class Recorder:
    """A ``run`` that doubles numbers, and holds its calls while it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.contexts: list[CallContext] = []
        self.cancelled = 0
        self.at_once = 0
        self.most_at_once = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(
        self, requests: Sequence[int], shared: CallContext
    ) -> Sequence[int | RagrigError]:
        self.calls.append(list(requests))
        self.contexts.append(shared)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            return [InvalidInput(f"{r} is bad") if r < 0 else 2 * r for r in requests]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1


def make(run: Any, key: Any = lambda _: None, **config: Any) -> Batcher[int, int]:
    return Batcher(run, BatchConfig(**config), "test", Metrics(), key)


async def start(batcher: Batcher[int, int], *requests: int) -> list[asyncio.Task[Any]]:
    """Submits, and returns once all of them are inside."""
    tasks = [asyncio.create_task(batcher.submit(r, context())) for r in requests]
    await settle()
    return tasks


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def values(tasks: Sequence[asyncio.Task[Any]]) -> list[int]:
    return [done.value for done in await asyncio.gather(*tasks)]


async def test_requests_of_one_moment_share_a_call() -> None:
    run = Recorder()
    tasks = await start(make(run), 1, 2, 3)
    assert await values(tasks) == [2, 4, 6]
    assert run.calls == [[1, 2, 3]]


async def test_requests_that_come_one_turn_after_another_share_a_call() -> None:
    run = Recorder()
    batcher = make(run)
    tasks = []
    for number in range(8):
        tasks.append(asyncio.create_task(batcher.submit(number, context())))
        await asyncio.sleep(0)
    assert await values(tasks) == [2 * number for number in range(8)]
    assert run.calls == [list(range(8))]


async def test_a_busy_loop_does_not_hold_a_batch_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.batcher._MOST_GATHERING_S", 0.0)
    run = Recorder()
    batcher = make(run)
    tasks = await start(batcher, 1)
    assert run.calls == [[1]]
    await values(tasks)


async def test_a_request_alone_is_sent_without_company() -> None:
    run = Recorder()
    batcher = make(run)
    assert (await batcher.submit(4, context())).value == 8
    assert (await batcher.submit(5, context())).value == 10
    assert run.calls == [[4], [5]]


async def test_what_queued_behind_a_call_forms_the_next() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    first = await start(batcher, 1)
    rest = await start(batcher, 2, 3) + await start(batcher, 4)
    assert run.calls == [[1]]
    assert batcher.waiting == 3
    run.open.set()
    assert await values(first + rest) == [2, 4, 6, 8]
    assert run.calls == [[1], [2, 3, 4]]
    assert batcher.waiting == 0


async def test_a_batch_is_never_larger_than_max_batch() -> None:
    run = Recorder()
    tasks = await start(make(run, max_batch=2, max_concurrent=1), 1, 2, 3, 4, 5)
    assert await values(tasks) == [2, 4, 6, 8, 10]
    assert run.calls == [[1, 2], [3, 4], [5]]


async def test_no_more_calls_at_once_than_allowed() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_batch=1, max_concurrent=2)
    tasks = await start(batcher, 1, 2, 3, 4)
    assert (batcher.running, batcher.waiting) == (2, 2)
    run.open.set()
    await values(tasks)
    assert run.most_at_once == 2


async def test_the_first_waits_for_others_until_the_batch_is_full() -> None:
    run = Recorder()
    batcher = make(run, max_batch=2, max_wait_ms=1000)
    first = await start(batcher, 1)
    assert run.calls == []
    second = await start(batcher, 2)
    assert await values(first + second) == [2, 4]
    assert run.calls == [[1, 2]]


async def test_the_wait_for_others_ends() -> None:
    run = Recorder()
    done = await make(run, max_batch=8, max_wait_ms=20).submit(1, context())
    assert done.value == 2
    assert done.queued_s >= 0.015
    assert run.calls == [[1]]


async def test_keys_never_mix_and_take_turns() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, key=lambda r: r % 2, max_batch=2, max_concurrent=1)
    blocker = await start(batcher, 100)
    crowd = await start(batcher, 2, 4, 6, 8, 1)
    run.open.set()
    await values(blocker + crowd)
    # The odd one did not have to wait for all of the even ones.
    assert run.calls == [[100], [2, 4], [1], [6, 8]]


async def test_keys_do_not_mix_while_they_wait_for_company() -> None:
    run = Recorder()
    batcher = make(run, key=lambda r: r % 2, max_batch=2, max_wait_ms=1000)
    odd = await start(batcher, 1)
    even = await start(batcher, 2, 4)
    assert await values(even) == [4, 8]
    assert run.calls == [[2, 4]]
    await values(odd + await start(batcher, 3))
    assert run.calls == [[2, 4], [1, 3]]


async def test_a_full_queue_refuses_and_says_when_to_return() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_batch=1, max_queue=2, max_concurrent=1)
    tasks = await start(batcher, 1, 2, 3)
    with pytest.raises(Overloaded) as refused:
        await batcher.submit(4, context())
    assert refused.value.retry_after_s >= 1.0
    assert refused.value.trace_id is not None
    run.open.set()
    assert await values(tasks) == [2, 4, 6]
    assert (await batcher.submit(5, context())).value == 10


async def test_one_moment_cannot_overfill_the_queue() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_batch=2, max_queue=3, max_concurrent=1)
    tasks = await start(batcher, *range(10))
    refused = [t for t in tasks if t.done() and isinstance(t.exception(), Overloaded)]
    assert len(refused) == 10 - 2 - 3
    run.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_bad_request_fails_alone() -> None:
    tasks = await start(make(Recorder()), 1, -2, 3)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [r.value for r in results if not isinstance(r, BaseException)] == [2, 6]
    assert isinstance(results[1], InvalidInput)


async def test_an_exception_fails_its_batch_and_no_other() -> None:
    calls = 0

    async def run(requests: Sequence[int], _: CallContext) -> Sequence[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("node x is away", hint="wait")
        return requests

    batcher = make(run, max_batch=2, max_concurrent=1)
    results = await asyncio.gather(
        *(batcher.submit(r, context()) for r in range(4)), return_exceptions=True
    )
    assert [type(r) for r in results[:2]] == [Unavailable, Unavailable]
    assert [r.value for r in results[2:] if not isinstance(r, BaseException)] == [2, 3]


async def test_errors_are_not_shared_between_members() -> None:
    async def run(requests: Sequence[int], _: CallContext) -> Sequence[int]:
        raise Unavailable("node x is away") from ValueError("why")

    batcher = make(run)
    contexts = [context(), context()]
    results = await asyncio.gather(
        *(batcher.submit(1, c) for c in contexts), return_exceptions=True
    )
    assert results[0] is not results[1]
    errors = [r for r in results if isinstance(r, RagrigError)]
    assert [r.trace_id for r in errors] == [c.trace_id for c in contexts]
    assert all(isinstance(r.__cause__, ValueError) for r in errors)


async def test_a_defect_becomes_an_internal_error_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run(requests: Sequence[int], _: CallContext) -> Sequence[int]:
        raise KeyError("a secret")

    with pytest.raises(InternalError) as failed:
        await make(run).submit(1, context())
    assert "secret" not in str(failed.value)
    assert "secret" in caplog.text


async def test_a_missing_result_is_a_defect_not_a_hang() -> None:
    async def run(requests: Sequence[int], _: CallContext) -> Sequence[int]:
        return []

    with pytest.raises(InternalError):
        await make(run).submit(1, context())


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    first = await start(batcher, 1)
    gone, stays = await start(batcher, 2, 3)
    gone.cancel()
    await settle()
    assert batcher.waiting == 1
    run.open.set()
    assert await values([*first, stays]) == [2, 6]
    assert run.calls == [[1], [3]]


async def test_a_call_ends_when_all_its_members_left() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    one, two = await start(batcher, 1, 2)
    one.cancel()
    await settle()
    assert run.cancelled == 0
    two.cancel()
    await settle()
    assert run.cancelled == 1
    assert batcher.running == 0
    run.open.set()
    assert (await batcher.submit(3, context())).value == 6


async def test_a_call_cancelled_before_its_first_step_frees_its_slot() -> None:
    run = Recorder()
    batcher = make(run, max_concurrent=1)
    task = asyncio.create_task(batcher.submit(1, context()))
    await asyncio.sleep(0)  # submitted
    await asyncio.sleep(0)  # its call is a task that has not run yet
    task.cancel()
    await settle()
    assert batcher.running == 0
    assert (await batcher.submit(2, context())).value == 4


async def test_a_result_is_not_given_to_one_who_left() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run)
    gone, stays = await start(batcher, 1, 2)
    gone.cancel()
    run.open.set()
    assert await values([stays]) == [4]
    assert gone.cancelled()


async def test_a_call_that_cancels_itself_fails_its_members() -> None:
    async def run(requests: Sequence[int], _: CallContext) -> Sequence[int]:
        raise asyncio.CancelledError

    with pytest.raises(Cancelled):
        await make(run).submit(1, context())


async def test_an_expired_member_fails_alone_while_queued() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    first = await start(batcher, 1)
    patient = await start(batcher, 3)
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        await batcher.submit(2, CallContext.start(0.02))
    assert batcher.waiting == 1
    run.open.set()
    assert await values(first + patient) == [2, 6]
    assert run.calls == [[1], [3]]


async def test_an_expired_member_fails_alone_while_running() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run)
    hasty = asyncio.create_task(batcher.submit(1, CallContext.start(0.02)))
    patient = await start(batcher, 2)
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert run.cancelled == 0
    run.open.set()
    assert await values(patient) == [4]


async def test_a_call_ends_when_its_last_member_expires() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run)
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(1, CallContext.start(0.02))
    await until(lambda: run.cancelled == 1, "the cancellation")


async def test_a_deadline_already_passed_never_enters() -> None:
    run = Recorder()
    with pytest.raises(DeadlineExceeded):
        await make(run).submit(1, CallContext.start(-1.0))
    assert run.calls == []


async def test_a_call_has_the_latest_deadline_and_every_trace_id() -> None:
    run = Recorder()
    batcher = make(run)
    contexts = [CallContext.start(t) for t in (5.0, 30.0, 10.0)]
    await asyncio.gather(*(batcher.submit(1, c) for c in contexts))
    assert run.contexts[0].deadline_s == contexts[1].deadline_s
    assert run.contexts[0].trace_id.split(",") == [c.trace_id for c in contexts]


async def test_trace_ids_of_a_large_batch_stay_short() -> None:
    run = Recorder()
    batcher = make(run, max_batch=100)
    await asyncio.gather(*(batcher.submit(1, context()) for _ in range(100)))
    assert len(run.calls) == 1
    assert run.contexts[0].trace_id.endswith(",+84")
    assert len(run.contexts[0].trace_id) < 400


async def test_times_are_those_of_the_request() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    first = await start(batcher, 1)
    second = await start(batcher, 2)
    await asyncio.sleep(0.03)
    run.open.set()
    done = [(await t) for t in first + second]
    assert done[0].ran_s >= 0.03
    assert done[1].queued_s >= 0.03
    assert done[0].queued_s < done[0].ran_s


async def test_closing_lets_accepted_requests_end() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1, max_wait_ms=1000, max_batch=2)
    tasks = await start(batcher, 1, 2, 3)
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(Unavailable):
        await batcher.submit(4, context())
    run.open.set()
    await closing
    assert await values(tasks) == [2, 4, 6]


async def test_closing_fails_what_does_not_end() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_concurrent=1)
    tasks = await start(batcher, 1) + await start(batcher, 2)
    await batcher.close(drain_s=0.02)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Unavailable, Unavailable]
    assert run.cancelled == 1
    assert (batcher.running, batcher.waiting) == (0, 0)


async def test_sizes_depths_and_refusals_are_measured() -> None:
    metrics = Metrics()
    run = Recorder()
    run.open.clear()
    batcher: Batcher[int, int] = Batcher(
        run, BatchConfig(max_queue=1, max_batch=1, max_concurrent=1), "test", metrics
    )
    tasks = await start(batcher, 1, 2, 3)
    text = metrics.render().decode()
    assert 'ragrig_queue_depth{stage="test"} 1.0' in text
    assert 'ragrig_calls_running{stage="test"} 1.0' in text
    assert 'ragrig_refused_total{stage="test"} 1.0' in text
    run.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 'ragrig_batch_requests_count{stage="test"} 2.0' in metrics.render().decode()


async def test_other_sizes_hold_at_once_for_those_that_wait() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_batch=1, max_concurrent=1)
    tasks = await start(batcher, *range(9))
    batcher.configure(BatchConfig(max_batch=4, max_concurrent=1))
    await settle()
    assert run.calls == [[0]], "a call under way is left alone"
    run.open.set()
    assert await values(tasks) == [2 * n for n in range(9)]
    assert run.calls == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


async def test_a_shorter_wait_holds_for_those_that_wait() -> None:
    run = Recorder()
    batcher = make(run, max_batch=8, max_wait_ms=1000)
    tasks = await start(batcher, 1, 2)
    await settle()
    assert run.calls == []
    batcher.configure(BatchConfig(max_batch=8, max_wait_ms=0))
    started_s = asyncio.get_running_loop().time()
    assert await values(tasks) == [2, 4]
    assert asyncio.get_running_loop().time() - started_s < 0.5
    assert run.calls == [[1, 2]]


async def test_a_smaller_batch_is_full_with_those_that_wait() -> None:
    run = Recorder()
    batcher = make(run, max_batch=8, max_wait_ms=1000)
    tasks = await start(batcher, 1, 2, 3)
    batcher.configure(BatchConfig(max_batch=3, max_wait_ms=1000))
    assert await values(tasks) == [2, 4, 6]
    assert run.calls == [[1, 2, 3]]


async def test_fewer_calls_at_once_refuse_nobody_who_may_wait() -> None:
    run = Recorder()
    run.open.clear()
    batcher = make(run, max_batch=1, max_concurrent=4, max_queue=2)
    tasks = await start(batcher, 1, 2, 3, 4)
    await settle()
    batcher.configure(BatchConfig(max_batch=1, max_concurrent=1, max_queue=2))
    tasks += await start(batcher, 5, 6)
    with pytest.raises(Overloaded):
        await batcher.submit(7, context())
    run.open.set()
    assert await values(tasks) == [2, 4, 6, 8, 10, 12]
