"""Ids of tags out of beats, in order, with a memory that waits."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

DEPTH = PARAMETERS["DEPTH"]
BASE = 0x7_0000_0000


def words_at(address: int) -> list[int]:
    """The 16 ids of a beat; each is made from its own address."""
    return [(address + 4 * i) * 2654435761 & 0xFFFFFFFF for i in range(16)]


async def fetch(dut: Any, rng: random.Random, tags: list[int], seen: set[str]) -> list[int]:
    line, beats, found = deque(tags), deque[int](), []
    for _ in range(60 * DEPTH + 100):
        push = bool(line) and rng.random() < 0.8
        dut.push.value = int(push)
        if push:
            dut.tag.value = line.popleft()
        ready = rng.random() < 0.6
        dut.arready.value = int(ready)
        give = bool(beats) and rng.random() < 0.6
        dut.rvalid.value = int(give)
        dut.rdata.value = pack(words_at(beats.popleft()), 32) if give else 0
        if dut.arvalid.value:
            seen.add("asked" if ready else "held")
            if ready:
                assert int(dut.araddr.value) % 64 == 0
                beats.append(int(dut.araddr.value))
        await tick(dut)
        if dut.id_valid.value:
            found.append(int(dut.id.value))
    return found


@cocotb.test()
async def ids_come_in_the_order_of_their_tags(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    for name in ("stop", "push", "arready", "rvalid", "rbad"):
        getattr(dut, name).value = 0
    dut.base.value = BASE
    await reset(dut)
    for n in (1, DEPTH, DEPTH // 2):
        tags = [rng.choice((0, 15, 16, (1 << 32) - 1, rng.getrandbits(32))) for _ in range(n)]
        wanted = [(BASE + 4 * tag) * 2654435761 & 0xFFFFFFFF for tag in tags]
        assert await fetch(dut, rng, tags, seen) == wanted
        assert dut.quiet.value == 1
    assert seen == {"asked", "held"}


@cocotb.test()
async def an_error_is_told_and_stop_asks_no_more(dut: Any) -> None:
    for name in ("stop", "push", "arready", "rvalid", "rbad"):
        getattr(dut, name).value = 0
    dut.base.value = BASE
    await reset(dut)
    dut.rvalid.value = dut.rbad.value = 1
    await tick(dut)
    assert dut.bad.value == 1
    dut.rvalid.value = dut.rbad.value = 0
    await reset(dut)
    dut.stop.value = dut.push.value = dut.arready.value = 1
    await tick(dut)
    dut.push.value = 0
    for _ in range(8):
        await tick(dut)
        assert dut.arvalid.value == 0
