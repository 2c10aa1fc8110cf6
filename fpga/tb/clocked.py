"""What the benches share: a clock, a reset, and signals set and read between rising edges."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

PARAMETERS: dict[str, int] = json.loads(os.environ["BENCH"])


async def reset(dut: Any) -> None:
    """Starts the clock and holds the reset for two cycles."""
    cocotb.start_soon(Clock(dut.clk, 2, "ns").start())
    dut.rst.value = 1
    await tick(dut, 2)
    dut.rst.value = 0
    await tick(dut)


async def tick(dut: Any, cycles: int = 1) -> None:
    """To the falling edge after so many rising ones: outputs are settled, inputs may change."""
    for _ in range(cycles):
        await FallingEdge(dut.clk)


def pack(values: list[int], bits: int) -> int:
    """Values side by side, the first lowest."""
    word = 0
    for at, value in enumerate(values):
        word |= value << at * bits
    return word


def seeded(offset: int = 0) -> random.Random:
    """Random numbers that the simulation's seed, which every log names, gives again."""
    return random.Random(cocotb.RANDOM_SEED + offset)  # noqa: S311
