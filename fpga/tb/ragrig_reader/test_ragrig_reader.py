"""The reader against a slow memory: order, bursts within pages, room, errors, stop."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

DEPTH, BURST = PARAMETERS["DEPTH"], PARAMETERS["BURST"]


def beat_at(address: int) -> int:
    return (address >> 6) * 0x9E3779B97F4A7C15 & ((1 << 512) - 1)


class Memory:
    """Answers bursts late and with gaps; runs beside the bench, cycle by cycle."""

    def __init__(self, dut: Any, rng: random.Random, bad: int | None = None) -> None:
        self.dut, self.rng, self.bad = dut, rng, bad
        self.waiting: deque[tuple[int, int]] = deque()
        self.asked = self.given = 0
        self.ready = False
        self.seen: set[str] = set()

    def step(self) -> None:
        """After ``give``: takes the address that the next edge hands over."""
        dut = self.dut
        if dut.arvalid.value and self.ready:
            address, beats = int(dut.araddr.value), int(dut.arlen.value) + 1
            assert beats <= BURST
            assert address % 64 == 0
            assert address // 4096 == (address + 64 * beats - 1) // 4096, "crosses a page"
            self.seen |= {"page end"} if (address + 64 * beats) % 4096 == 0 else set()
            self.seen.add("short" if beats < BURST else "full")
            self.waiting.extend((address + 64 * i, self.asked + i) for i in range(beats))
            self.asked += beats
            assert len(self.waiting) <= DEPTH

    def give(self) -> None:
        """A beat for the next edge, or none."""
        dut = self.dut
        self.ready = self.rng.random() < 0.7
        dut.arready.value = int(self.ready)
        give = bool(self.waiting) and self.rng.random() < 0.7
        dut.rvalid.value = int(give)
        if give:
            address, number = self.waiting.popleft()
            dut.rdata.value, dut.rbad.value = beat_at(address), int(number == self.bad)
            self.given += 1


async def begin(dut: Any) -> None:
    for name in ("stop", "cmd_valid", "pop", "arready", "rvalid", "rbad"):
        getattr(dut, name).value = 0
    await reset(dut)


async def run(
    dut: Any, memory: Memory, runs: list[tuple[int, int]], rng: random.Random, pop_share: float
) -> None:
    """Sends runs and checks that every beat comes, in order."""
    wanted = deque(address + 64 * i for address, beats in runs for i in range(beats))
    line = deque(runs)
    for _ in range(100_000):
        sends = bool(line) and rng.random() < 0.6
        dut.cmd_valid.value = int(sends)
        if line:
            dut.cmd_addr.value, dut.cmd_beats.value = line[0]
        if sends and dut.cmd_ready.value:
            line.popleft()
        pops = bool(dut.valid.value) and rng.random() < pop_share
        dut.pop.value = int(pops)
        if dut.valid.value:
            assert dut.data.value == beat_at(wanted[0])
        memory.give()
        if pops:
            wanted.popleft()
        memory.step()
        await tick(dut)
        if not wanted and not line:
            break
    dut.cmd_valid.value = dut.pop.value = dut.rvalid.value = 0
    await tick(dut, 2)
    assert not wanted, "beats are missing"
    assert dut.quiet.value == 1
    assert dut.valid.value == 0


@cocotb.test()
async def runs_of_every_length_come_in_order(dut: Any) -> None:
    rng = seeded()
    await begin(dut)
    memory = Memory(dut, rng)
    runs = [(64 * rng.randrange(1 << 40), beats) for beats in (1, 2, BURST, BURST + 1, 3 * BURST)]
    runs += [(4096 - 64, 2), (8192 - 64 * BURST // 2, BURST), (1 << 44, 2 * DEPTH + 1)]
    await run(dut, memory, runs, rng, 0.9)
    await run(dut, memory, runs[::-1], rng, 0.2)
    assert memory.seen == {"page end", "short", "full"}


@cocotb.test()
async def an_error_is_told_and_stop_ends_requests(dut: Any) -> None:
    rng = seeded(1)
    await begin(dut)
    memory = Memory(dut, rng, bad=3)
    dut.cmd_valid.value, dut.cmd_addr.value, dut.cmd_beats.value = 1, 64 * 5, 8 * DEPTH
    bad = 0
    for _ in range(400):
        memory.give()
        memory.step()
        await tick(dut)
        dut.cmd_valid.value = 0
        bad += int(dut.bad.value)
        if bad:
            dut.stop.value = 1
    assert bad == 1
    assert dut.quiet.value == 1, "what was under way has come"
    assert memory.asked == memory.given < 8 * DEPTH
    await begin(dut)
    await run(dut, Memory(dut, rng), [(0, 3)], rng, 1.0)
