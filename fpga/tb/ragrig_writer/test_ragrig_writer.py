"""The writer: records of any count up to k, ids before or after results, a slow memory, errors."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

KMAX, SW = PARAMETERS["KMAX"], PARAMETERS["SW"]
ADDRESS, EMPTY = 0x12_3456_7000, 0xFFFFFFFF
VERSION = 0x0001_0001


class Memory:
    def __init__(self, dut: Any, rng: random.Random) -> None:
        self.dut, self.rng = dut, rng
        self.beats: dict[int, int] = {}
        self.addresses, self.words = deque[int](), deque[int]()
        self.answers = 0
        self.bad = False
        self.seen: set[str] = set()

    def step(self) -> None:
        dut, rng = self.dut, self.rng
        address, word = rng.random() < 0.6, rng.random() < 0.6
        answer = self.answers > 0 and rng.random() < 0.3
        dut.awready.value, dut.wready.value = int(address), int(word)
        dut.bvalid.value, dut.bbad.value = int(answer), int(answer and self.bad)
        self.answers -= answer
        if dut.awvalid.value and address:
            self.addresses.append(int(dut.awaddr.value))
        if dut.wvalid.value and word:
            self.words.append(int(dut.wdata.value))
        self.seen |= {"held"} if dut.awvalid.value and not address else set()
        while self.addresses and self.words:
            self.beats[self.addresses.popleft()] = self.words.popleft()
            self.answers += 1


async def begin(dut: Any, k: int) -> None:
    for name in ("stop", "in_valid", "in_found", "in_last", "id_valid", "awready", "wready"):
        getattr(dut, name).value = 0
    dut.bvalid.value = dut.bbad.value = 0
    dut.address.value, dut.k.value = ADDRESS, k
    await reset(dut)


async def query(
    dut: Any, memory: Memory, rng: random.Random, k: int, count: int, codes: int
) -> list[tuple[int, int]]:
    """Hands in k results, worst first, of which the last ``count`` were found."""
    entries = [(rng.getrandbits(32), rng.getrandbits(SW)) for _ in range(count)]
    dut.query_codes.value, dut.query_cycles.value = codes, 3 * codes
    waiting = deque[int]()
    for rank in range(k - 1, -1, -1):
        found = rank < count
        dut.in_valid.value, dut.in_found.value, dut.in_rank.value = 1, int(found), rank
        dut.in_sum.value = entries[rank][1] if found else (1 << SW) - 1
        dut.in_last.value = int(rank == 0)
        await _cycle(dut, memory, rng, waiting)
        if found:
            waiting.append(entries[rank][0])
    dut.in_valid.value = dut.in_last.value = 0
    for _ in range(60 * (k + 40)):
        await _cycle(dut, memory, rng, waiting)
        if dut.free.value:
            break
    assert dut.free.value == 1
    return entries


async def _cycle(dut: Any, memory: Memory, rng: random.Random, waiting: deque[int]) -> None:
    give = bool(waiting) and rng.random() < 0.5
    dut.id_valid.value = int(give)
    dut.id.value = waiting.popleft() if give else 0
    memory.step()
    await tick(dut)


@cocotb.test()
async def records_of_every_count(dut: Any) -> None:
    rng = seeded()
    for k in sorted({1, 7, 8, 9, KMAX}):
        await begin(dut, k)
        memory = Memory(dut, rng)
        size = 64 * (1 + -(-k // 8))
        for number, count in enumerate(sorted({0, 1, k // 2, k})):
            entries = await query(dut, memory, rng, k, count, codes=1000 + number)
            assert dut.written.value == number + 1
            at = ADDRESS + number * size
            head = memory.beats[at]
            words = [head >> 32 * i & EMPTY for i in range(16)]
            assert words[:8] == [
                VERSION,
                0,
                count,
                number,
                3 * (1000 + number),
                0,
                1000 + number,
                0,
            ]
            found = []
            for beat in range(1, size // 64):
                word = memory.beats[at + 64 * beat]
                found += [(word >> 64 * i & EMPTY, word >> 64 * i + 32 & EMPTY) for i in range(8)]
            assert found == entries + [(EMPTY, EMPTY)] * (len(found) - count)
        assert memory.seen == {"held"}
        assert dut.quiet.value == 1


@cocotb.test()
async def an_error_of_the_memory_is_told(dut: Any) -> None:
    rng = seeded(1)
    await begin(dut, 3)
    memory = Memory(dut, rng)
    memory.bad = True
    told = 0

    async def watch() -> None:
        nonlocal told
        while True:
            await tick(dut)
            told += int(dut.bad.value)

    watching = cocotb.start_soon(watch())
    await query(dut, memory, rng, 3, 2, 5)
    watching.kill()
    assert told > 0
