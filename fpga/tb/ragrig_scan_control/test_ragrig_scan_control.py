"""The scan control: which lanes hold codes, masks, tags, tables taken and released, stalls."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

P, FLUSH = PARAMETERS["P"], PARAMETERS["FLUSH"]
INPUTS = (
    "cmd_valid", "table_loaded", "beats_valid", "topk_ready", "topk_idle", "drain_last",
    "writer_free",
)  # fmt: skip
Command = tuple[int, int, int, int, int, int, int]


def commands(rng: random.Random, queries: int, nprobe: int) -> list[Command]:
    """(codes, tag, bias, bank, fresh, release, last)"""
    sizes = (0, 1, P - 1, P, P + 1, 3 * P, rng.randrange(1, 9 * P))
    return [
        (codes, rng.getrandbits(31), rng.getrandbits(20), rng.getrandbits(1), int(codes > 0),
         int(codes > 0), int(p == nprobe - 1))
        for _ in range(queries)
        for p in range(nprobe)
        for codes in (rng.choice(sizes),)
    ]  # fmt: skip


def lanes(line: list[Command]) -> list[tuple[int, int, int, int]]:
    """(mask, tag, bias, bank) of every beat."""
    return [
        ((1 << min(P, codes - at)) - 1, tag + at, bias, bank)
        for codes, tag, bias, bank, *_ in line
        for at in range(0, codes, P)
    ]


class Around:
    """The units around it, with random pauses."""

    def __init__(self, dut: Any, rng: random.Random, line: list[Command], pauses: float) -> None:
        self.dut, self.rng, self.line, self.pauses = dut, rng, deque(line), pauses
        self.beats: list[tuple[int, int, int, int]] = []
        self.counts = dict.fromkeys(("take", "release", "end"), 0)
        self.stalls = dict.fromkeys(("memory", "table", "topk", "result"), 0)
        self.draining = 0
        self.masks: list[int] = []
        self.counts |= {"start": 0, "last": 0}

    async def cycle(self) -> None:
        dut, rng = self.dut, self.rng
        for name in INPUTS:
            getattr(dut, name).value = int(rng.random() >= self.pauses)
        mask = rng.choice(((1 << P) - 1, rng.getrandbits(P)))
        dut.mask.value = mask
        dut.cmd_valid.value = int(bool(self.line))
        dut.drain_last.value = int(self.draining == 1)
        if self.line:
            codes, tag, bias, bank, fresh, release, last = self.line[0]
            dut.cmd_codes.value, dut.cmd_tag.value, dut.cmd_bias.value = codes, tag, bias
            dut.cmd_bank.value, dut.cmd_fresh.value = bank, fresh
            dut.cmd_release.value, dut.cmd_last.value = release, last
        await _settled()
        if dut.issue.value:
            self.masks.append(mask)
        self.look()
        await tick(dut)

    def look(self) -> None:
        dut = self.dut
        if dut.cmd_pop.value:
            self.line.popleft()
        if dut.issue.value:
            seen = (dut.lane_valid, dut.tag, dut.bias, dut.bank)
            self.beats.append(tuple(int(signal.value) for signal in seen))
            self.counts["last"] += int(dut.last_beat.value)
        self.counts["start"] += int(dut.list_start.value)
        self.counts["take"] += int(dut.table_take.value)
        self.counts["release"] += int(dut.table_release.value)
        self.counts["end"] += int(dut.query_end.value)
        for name in self.stalls:
            self.stalls[name] += int(getattr(dut, f"stall_{name}").value)
        if self.draining:
            self.draining -= 1
        elif dut.drain.value:
            self.draining = 4


async def _settled() -> None:
    from cocotb.triggers import Timer

    await Timer(100, "ps")


@cocotb.test()
async def beats_are_what_the_commands_say(dut: Any) -> None:
    rng = seeded()
    for pauses in (0.0, 0.4):
        line = commands(rng, queries=6, nprobe=7)
        dut.cmd_valid.value = 0
        await reset(dut)
        around = Around(dut, rng, line, pauses)
        for _ in range(20_000):
            await around.cycle()
            if around.counts["end"] == 6:
                break
        wanted = lanes(line)
        assert around.beats == [
            (valid & mask, *rest) for (valid, *rest), mask in zip(wanted, around.masks, strict=True)
        ]
        assert any(mask & (1 << P) - 1 != (1 << P) - 1 for mask in around.masks)
        full = sum(1 for command in line if command[0])
        assert around.counts["take"] == full
        assert around.counts["start"] == around.counts["last"] == full
        assert full - around.counts["release"] in (0, 1)  # the last one is registered
        if pauses:
            assert all(around.stalls.values()), around.stalls
        else:
            assert not any(around.stalls.values()), around.stalls


@cocotb.test()
async def one_cycle_between_lists(dut: Any) -> None:
    rng = seeded(1)
    line: list[Command] = [(4 * P, 8 * at * P, 0, 0, 0, 0, int(at == 9)) for at in range(10)]
    dut.cmd_valid.value = 0
    await reset(dut)
    around = Around(dut, rng, line, 0.0)
    for _ in range(5 * len(line)):
        await around.cycle()
    assert len(around.beats) == 4 * len(line)
