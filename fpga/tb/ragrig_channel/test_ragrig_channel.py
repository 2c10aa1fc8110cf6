"""A channel: codes and biases of lists over one port, answers by id and out of order, errors."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

M = PARAMETERS["M"]
PER_BEAT = M // 2
CODES, BIASES = 1 << 20, 1 << 24


def beat_at(address: int) -> int:
    """What memory holds there."""
    return address * 0x9E3779B97F4A7C15 & (1 << 512) - 1


class Memory:
    """Takes addresses late, answers one id or the other."""

    def __init__(self, dut: Any, rng: random.Random, pauses: float) -> None:
        self.dut, self.rng, self.pauses = dut, rng, pauses
        self.asked: tuple[deque[int], deque[int]] = (deque(), deque())
        self.bad_at = -1
        self.ids: list[int] = []

    def drive(self) -> None:
        """Before a rising edge."""
        dut, rng = self.dut, self.rng
        dut.arready.value = int(rng.random() >= self.pauses)
        own = rng.choice([i for i in (0, 1) if self.asked[i]] or [0])
        give = bool(self.asked[own]) and rng.random() >= self.pauses
        dut.rvalid.value, dut.rid.value = int(give), own
        if give:
            address = self.asked[own].popleft()
            self.ids.append(own)
            dut.rdata.value, dut.rbad.value = beat_at(address), int(address == self.bad_at)

    def take(self) -> None:
        """What the edge will take."""
        dut = self.dut
        if dut.arvalid.value and dut.arready.value:
            at, beats = int(dut.araddr.value), int(dut.arlen.value) + 1
            assert at % 4096 + 64 * beats <= 4096, "a burst crosses a page"
            self.asked[int(dut.arid.value)].extend(range(at, at + 64 * beats, 64))


async def begin(dut: Any) -> None:
    for name in (
        "stop", "fetch_valid", "biased", "codes_pop", "biases_pop", "arready", "rvalid", "rbad",
        "rid", "rdata", "fetch_beat", "fetch_beats",
    ):  # fmt: skip
        getattr(dut, name).value = 0
    dut.codes_base.value, dut.biases_base.value = CODES, BIASES
    await reset(dut)


def wanted_of(lists: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    codes = [beat_at(CODES + 64 * (first + i)) for first, n in lists for i in range(n)]
    biases = [
        beat_at(BIASES + 64 * (first // PER_BEAT + i))
        for first, n in lists
        for i in range(-(-n // PER_BEAT))
    ]
    return codes, biases


async def fetch(
    dut: Any, rng: random.Random, memory: Memory, lists: list[tuple[int, int]], pauses: float
) -> tuple[list[int], list[int]]:
    """Asks for the lists; all beats that came."""
    line, found = deque(lists), ([], [])  # type: ignore[var-annotated]
    for _ in range(4000):
        give = bool(line) and bool(dut.fetch_ready.value) and rng.random() >= pauses
        dut.fetch_valid.value = int(give)
        if line:
            dut.fetch_beat.value, dut.fetch_beats.value = line[0]
        for kind, name in enumerate(("codes", "biases")):
            pop = bool(getattr(dut, f"{name}_valid").value) and rng.random() >= pauses
            getattr(dut, f"{name}_pop").value = int(pop)
            if pop:
                found[kind].append(int(getattr(dut, name).value))
        memory.drive()
        await _settled()
        memory.take()
        if give:
            line.popleft()
        await tick(dut)
    dut.codes_pop.value = dut.biases_pop.value = 0
    return found


async def _settled() -> None:
    from cocotb.triggers import Timer

    await Timer(100, "ps")


def random_lists(rng: random.Random) -> list[tuple[int, int]]:
    sizes = (1, PER_BEAT, PER_BEAT + 1, 70, rng.randrange(1, 40))
    return [(PER_BEAT * rng.randrange(1000), rng.choice(sizes)) for _ in range(12)]


@cocotb.test()
async def codes_and_biases_of_lists(dut: Any) -> None:
    rng = seeded()
    for biased in (True, False):
        for pauses in (0.0, 0.4):
            await begin(dut)
            dut.biased.value = int(biased)
            memory, lists = Memory(dut, rng, pauses), random_lists(rng)
            codes, biases = await fetch(dut, rng, memory, lists, pauses)
            assert codes == wanted_of(lists)[0]
            assert biases == (wanted_of(lists)[1] if biased else [])
            assert dut.quiet.value == 1
            turns = sum(a != b for a, b in zip(memory.ids, memory.ids[1:], strict=False))
            assert (turns > 10) == biased, "answers of both kinds come mixed"


@cocotb.test()
async def an_error_of_either_is_told(dut: Any) -> None:
    rng = seeded(1)
    for base in (CODES, BIASES):
        await begin(dut)
        dut.biased.value = 1
        memory = Memory(dut, rng, 0.2)
        memory.bad_at = base
        dut.fetch_valid.value, dut.fetch_beat.value, dut.fetch_beats.value = 1, 0, 3
        told = 0
        for _ in range(60):
            memory.drive()
            await _settled()
            memory.take()
            told += int(dut.bad.value)
            await tick(dut)
            dut.fetch_valid.value = 0
        assert told == 1


@cocotb.test()
async def it_is_quiet_when_it_was_stopped(dut: Any) -> None:
    rng = seeded(2)
    await begin(dut)
    dut.biased.value = 1
    memory = Memory(dut, rng, 0.3)
    dut.fetch_valid.value, dut.fetch_beat.value, dut.fetch_beats.value = 1, 0, 400
    loud = 0
    for at in range(120):
        dut.stop.value = int(at > 12)
        memory.drive()
        await _settled()
        memory.take()
        loud += int(not dut.quiet.value)
        await tick(dut)
        dut.fetch_valid.value = 0
    assert loud > 0
    assert dut.quiet.value == 1
