"""The FIFO against a deque: full, empty, both at once, and a reset with entries in it."""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

W, DEPTH = PARAMETERS["W"], PARAMETERS["DEPTH"]


@cocotb.test()
async def entries_come_out_in_order(dut: Any) -> None:
    rng, held, seen = seeded(), deque[int](), set[str]()
    dut.push.value = dut.pop.value = 0
    await reset(dut)
    for cycle in range(60 * DEPTH):
        count, valid = int(dut.count.value), int(dut.valid.value)
        assert count + valid <= len(held) <= count + valid + 0, f"cycle {cycle}"
        # Stretches that fill and stretches that empty it.
        filling = cycle // (4 * DEPTH) % 2 == 0
        push = count < DEPTH and rng.random() < (0.9 if filling else 0.2)
        pop = bool(valid) and rng.random() < (0.2 if filling else 0.9)
        seen |= {"full"} if count == DEPTH else set()
        seen |= {"empty"} if not held else set()
        seen |= {"both"} if push and pop else set()
        if valid:
            assert dut.rdata.value == held[0], f"cycle {cycle}"
        dut.push.value, dut.pop.value = int(push), int(pop)
        word = rng.getrandbits(W)
        dut.wdata.value = word
        await tick(dut)
        if pop:
            held.popleft()
        if push:
            held.append(word)
    assert seen == {"full", "empty", "both"}


@cocotb.test()
async def a_reset_empties_it(dut: Any) -> None:
    dut.push.value = dut.pop.value = 0
    await reset(dut)
    dut.push.value = 1
    await tick(dut, 3)
    dut.push.value, dut.rst.value = 0, 1
    await tick(dut)
    dut.rst.value = 0
    await tick(dut, 2)
    assert dut.count.value == 0
    assert dut.valid.value == 0
