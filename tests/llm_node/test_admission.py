from __future__ import annotations

import asyncio

import pytest

from llm_node.admission import Admission
from ragschema.errors import Overloaded


async def _hold(gate: Admission, release: asyncio.Event, order: list[int], name: int) -> None:
    async with gate.slot():
        order.append(name)
        await release.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_runs_waits_refuses_in_order() -> None:
    gate = Admission("things", max_running=2, max_waiting=2)
    release, order = asyncio.Event(), []
    tasks = [asyncio.create_task(_hold(gate, release, order, i)) for i in range(4)]
    await _settle()
    assert (gate.running, gate.waiting, order) == (2, 2, [0, 1])
    with pytest.raises(Overloaded, match="2 things run and 2 wait"):
        async with gate.slot():
            pass
    release.set()
    await asyncio.gather(*tasks)
    assert (gate.running, gate.waiting, order) == (0, 0, [0, 1, 2, 3])


async def test_cancelled_waiter_leaves_the_queue() -> None:
    gate = Admission("things", 1, 4)
    release, order = asyncio.Event(), []
    tasks = [asyncio.create_task(_hold(gate, release, order, i)) for i in range(3)]
    await _settle()
    tasks[1].cancel()
    await _settle()
    assert (gate.running, gate.waiting) == (1, 1)
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    assert (gate.running, gate.waiting) == (0, 0)


async def test_slot_handed_to_a_waiter_that_is_being_cancelled_is_not_lost() -> None:
    gate = Admission("things", 1, 4)
    release, order = asyncio.Event(), []
    first = asyncio.create_task(_hold(gate, release, order, 0))
    second = asyncio.create_task(_hold(gate, asyncio.Event(), order, 1))
    await _settle()
    release.set()
    await first  # the slot is now promised to the second, which has not run yet
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (gate.running, gate.waiting) == (0, 0)
    async with gate.slot() as waited_us:
        assert waited_us >= 0
        assert gate.running == 1


async def test_failing_work_frees_its_slot() -> None:
    gate = Admission("things", 1, 1)
    with pytest.raises(ValueError, match="broken"):
        async with gate.slot():
            raise ValueError("broken")
    assert gate.running == 0
