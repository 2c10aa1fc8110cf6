"""Admission to work that streams."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.metrics import Metrics
from coordinator.stages.gate import Gate
from ragschema.errors import DeadlineExceeded, Overloaded
from ragschema.rig import BatchConfig
from ragschema.types import CallContext
from tests.coordinator.making import context


def make(concurrent: int = 1, queue: int = 1) -> Gate:
    config = BatchConfig(max_batch=1, max_queue=queue, max_concurrent=concurrent)
    return Gate(config, "generate", Metrics())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(gate: Gate, done: asyncio.Event) -> None:
    async with gate.enter(context()):
        await done.wait()


async def test_the_queue_is_bounded_and_moves_on() -> None:
    gate, done = make(), asyncio.Event()
    tasks = [asyncio.create_task(hold(gate, done)) for _ in range(2)]
    await settle()
    assert (gate.inside, gate.waiting) == (1, 1)
    with pytest.raises(Overloaded):
        await hold(gate, done)
    done.set()
    await asyncio.gather(*tasks)
    assert (gate.inside, gate.waiting) == (0, 0)


async def test_a_deadline_ends_the_wait() -> None:
    gate, done = make(), asyncio.Event()
    holder = asyncio.create_task(hold(gate, done))
    await settle()
    with pytest.raises(DeadlineExceeded):
        async with gate.enter(CallContext.start(0.02)):
            pytest.fail("it got in")
    assert gate.waiting == 0
    done.set()
    await holder


async def test_one_who_leaves_the_queue_takes_no_slot() -> None:
    gate, done = make(), asyncio.Event()
    holder = asyncio.create_task(hold(gate, done))
    waiter = asyncio.create_task(hold(gate, done))
    await settle()
    waiter.cancel()
    await settle()
    assert gate.waiting == 0
    done.set()
    await holder
    await hold(gate, done)


async def test_an_error_inside_frees_the_slot() -> None:
    gate = make()
    with pytest.raises(ValueError, match="inside"):
        async with gate.enter(context()):
            raise ValueError("inside")
    assert gate.inside == 0
    async with gate.enter(context()):
        assert gate.inside == 1


def sized(concurrent: int, queue: int = 8) -> BatchConfig:
    return BatchConfig(max_batch=1, max_queue=queue, max_concurrent=concurrent)


async def test_a_wider_gate_lets_those_in_who_wait() -> None:
    gate, done = make(queue=8), asyncio.Event()
    tasks = [asyncio.create_task(hold(gate, done)) for _ in range(5)]
    await settle()
    assert (gate.inside, gate.waiting) == (1, 4)
    await gate.configure(sized(3))
    await settle()
    assert (gate.inside, gate.waiting) == (3, 2)
    done.set()
    await asyncio.gather(*tasks)
    assert (gate.inside, gate.waiting) == (0, 0)


async def test_a_narrower_gate_waits_for_those_inside() -> None:
    gate = make(concurrent=3, queue=8)
    ends = [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(hold(gate, done)) for done in ends]
    await settle()
    await gate.configure(sized(1))
    await settle()
    assert (gate.inside, gate.waiting) == (3, 2), "nobody is thrown out"
    for number, inside in enumerate((2, 1, 1, 1, 0)):
        ends[number].set()
        await settle()
        assert gate.inside == inside, number
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("inside", [0, 1, 2, 4])
async def test_a_gate_ends_up_as_wide_as_it_was_told_last(inside: int) -> None:
    gate, held = make(concurrent=4, queue=64), asyncio.Event()
    tasks = [asyncio.create_task(hold(gate, held)) for _ in range(inside)]
    await settle()
    for width in (2, 5, 1, 3, 3, 1, 2):
        await gate.configure(sized(width, queue=64))
    held.set()
    await asyncio.gather(*tasks)
    done = asyncio.Event()
    tasks = [asyncio.create_task(hold(gate, done)) for _ in range(6)]
    await settle()
    assert (gate.inside, gate.waiting) == (2, 4)
    done.set()
    await asyncio.gather(*tasks)
