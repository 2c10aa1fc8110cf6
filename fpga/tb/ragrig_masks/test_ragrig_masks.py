"""The mask unit: P bits for every beat of codes, from any word of a beat; no beat is left."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick
from cocotb.triggers import Timer

P = PARAMETERS["P"]


class Memory:
    """The reader in front: gives a list's beats of masks, and counts what is taken."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.beats = rng, deque[int]()

    def list_of(self, word: int, windows: int) -> list[int]:
        """Puts a list's beats in line; the P bits of each of its windows."""
        count = -(-(64 * word + windows * P) // 512)
        bits = self.rng.getrandbits(512 * count) if count else 0
        self.beats += [bits >> 512 * i & (1 << 512) - 1 for i in range(count)]
        return [bits >> 64 * word + P * i & (1 << P) - 1 for i in range(windows)]


async def scan(dut: Any, memory: Memory, masked: bool, pauses: float, seen: set[str]) -> None:
    """One list: random size, random pauses of memory and scan."""
    rng, word = memory.rng, memory.rng.randrange(8)
    windows = rng.choice((1, 2, 512 // P, 512 // P + 1, rng.randrange(1, 3 + 1400 // P)))
    wanted = memory.list_of(word, windows) if masked else [(1 << P) - 1] * windows
    seen.add("masked" if masked else "unmasked")
    dut.start.value, dut.masked.value, dut.word.value = 1, int(masked), word
    dut.issue.value = dut.valid.value = dut.last.value = 0
    await tick(dut)
    dut.start.value = 0
    found: list[int] = []
    for _ in range(40 * windows + 100):
        have = bool(memory.beats) and rng.random() >= pauses
        dut.valid.value = int(have)
        dut.data.value = memory.beats[0] if have else rng.getrandbits(512)
        dut.issue.value = 0
        await Timer(100, "ps")
        ready = bool(dut.ready.value)
        go = ready and rng.random() >= pauses
        seen.add("ready" if ready else "waited")
        dut.issue.value, dut.last.value = int(go), int(len(found) == windows - 1)
        await Timer(100, "ps")
        if go:
            found.append(int(dut.mask.value))
        if dut.pop.value:
            assert have, "took a beat that is not there"
            memory.beats.popleft()
        await tick(dut)
        if len(found) == windows:
            break
    dut.issue.value = 0
    assert found == wanted
    assert not memory.beats, "a list's beats are left"


@cocotb.test()
async def every_lane_gets_its_bit(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    for name in ("start", "masked", "word", "valid", "data", "issue", "last"):
        getattr(dut, name).value = 0
    await reset(dut)
    memory = Memory(rng)
    for number in range(60):
        await scan(dut, memory, rng.random() < 0.8, 0.4 * (number % 2), seen)
    assert seen == {"masked", "unmasked", "ready", "waited"}


@cocotb.test()
async def a_reset_forgets_the_list(dut: Any) -> None:
    rng, seen = seeded(1), set[str]()
    dut.start.value, dut.masked.value, dut.word.value = 1, 1, 3
    await reset(dut)
    dut.start.value = dut.valid.value = 0
    dut.rst.value = 1
    await tick(dut)
    dut.rst.value = 0
    await tick(dut)
    assert dut.ready.value == 1
    await scan(dut, Memory(rng), True, 0.0, seen)
