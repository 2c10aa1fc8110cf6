"""The top-K unit against sorted(): ties, every k, nothing at all, masked lanes, back-pressure."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

P, KMAX = PARAMETERS["P"], PARAMETERS["KMAX"]
SW, TW = 24, 32
MARGIN = 12
EMPTY = (None, None)
Key = tuple[int, int]


async def begin(dut: Any) -> None:
    for name in ("load", "k", "in_valid", "in_sum", "in_tag", "drain", "out_ready"):
        getattr(dut, name).value = 0
    await reset(dut)


async def feed(dut: Any, beats: list[list[Key | None]], rng: random.Random, seen: set[str]) -> None:
    """Sends beats of P keys; None is a masked lane. What is in flight comes MARGIN later."""
    line: list[list[Key | None]] = []
    left = list(beats)
    while left or any(line):
        if left and dut.ready.value and rng.random() < 0.9:
            line.append(left.pop(0))
        else:
            seen.add("stalled" if left and not dut.ready.value else "paused")
            line.append([])
        beat = line.pop(0) if len(line) >= MARGIN - 3 else []
        lanes = [key is not None for key in beat]
        dut.in_valid.value = pack([int(v) for v in lanes], 1)
        keys = [key or (0, 0) for key in beat]
        dut.in_sum.value = pack([key[0] for key in keys], SW)
        dut.in_tag.value = pack([key[1] for key in keys], TW)
        await tick(dut)
    dut.in_valid.value = 0


async def drain(dut: Any, k: int, rng: random.Random, seen: set[str]) -> list[tuple[Any, Any]]:
    """Entries best first, with back-pressure."""
    dut.drain.value = 1
    await tick(dut)
    found: list[tuple[Any, Any]] = []
    for _ in range(40 * (KMAX + 40) * P):
        ready = rng.random() < 0.6
        dut.out_ready.value = int(ready)
        if dut.out_valid.value:
            dut.drain.value = 0
            seen.add("held" if not ready else "taken")
            if ready:
                entry = (int(dut.out_sum.value), int(dut.out_tag.value))
                found.append(entry if dut.out_found.value else EMPTY)
                assert dut.out_rank.value == k - len(found)
                assert dut.out_last.value == int(len(found) == k)
        await tick(dut)
        if len(found) == k:
            break
    dut.out_ready.value = 0
    assert dut.out_valid.value == 0
    return found[::-1]


async def query(
    dut: Any, rng: random.Random, keys: list[Key | None], k: int, seen: set[str]
) -> None:
    dut.load.value, dut.k.value = 1, k
    await tick(dut)
    dut.load.value = 0
    await feed(dut, [keys[at : at + P] for at in range(0, len(keys), P)], rng, seen)
    await tick(dut)
    found = await drain(dut, k, rng, seen)
    want: list[Any] = sorted(key for key in keys if key is not None)[:k]
    want += [EMPTY] * (k - len(want))
    assert found == want, f"k {k}, {len(keys)} keys"


def random_keys(rng: random.Random, n: int, sums: int) -> list[Key | None]:
    tags = rng.sample(range(1 << 32), n)
    return [(rng.randrange(sums), tag) for tag in tags]


@cocotb.test()
async def random_keys_at_every_k(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    await begin(dut)
    every = sorted({1, 2, KMAX // 2, KMAX - 1, KMAX} & set(range(1, KMAX + 1)))
    for k in every * (1 if len(every) > 1 else 8):
        await query(dut, rng, random_keys(rng, 12 * P + 3, 1 << SW), k, seen)
    assert {"paused", "held", "taken"} <= seen


@cocotb.test()
async def ties_go_to_the_smaller_tag(dut: Any) -> None:
    rng, seen = seeded(1), set[str]()
    await begin(dut)
    for sums in (1, 3):
        await query(dut, rng, random_keys(rng, 10 * P, sums), KMAX, seen)


@cocotb.test()
async def fewer_keys_than_k_and_none(dut: Any) -> None:
    rng, seen = seeded(2), set[str]()
    await begin(dut)
    for n in (0, 1, KMAX - 1, KMAX, KMAX + 1):
        await query(dut, rng, random_keys(rng, n, 1 << SW), KMAX, seen)
    await query(dut, rng, [None] * (2 * P), 1, seen)


@cocotb.test()
async def masked_lanes_are_not_seen(dut: Any) -> None:
    rng, seen = seeded(3), set[str]()
    await begin(dut)
    keys = [key if rng.random() < 0.4 else None for key in random_keys(rng, 20 * P, 1 << 10)]
    await query(dut, rng, keys, KMAX, seen)


@cocotb.test()
async def descending_keys_stall_and_stay_exact(dut: Any) -> None:
    rng, seen = seeded(4), set[str]()
    await begin(dut)
    n = 60 * P
    keys: list[Key | None] = [(n - at, at) for at in range(n)]
    await query(dut, rng, keys, KMAX, seen)
    assert "stalled" in seen or P == 1, "the lanes never waited for the queue"
    await query(dut, rng, [(at, at) for at in range(n)], KMAX, seen)


@cocotb.test()
async def extreme_keys_are_told_from_none(dut: Any) -> None:
    rng, seen = seeded(5), set[str]()
    await begin(dut)
    top = ((1 << SW) - 1, (1 << TW) - 1)
    await query(dut, rng, [top, (0, 0)], KMAX, seen)
    await query(dut, rng, [top], KMAX, seen)


@cocotb.test()
async def a_reset_in_the_middle_leaves_an_empty_queue(dut: Any) -> None:
    rng, seen = seeded(6), set[str]()
    await begin(dut)
    dut.load.value, dut.k.value = 1, KMAX
    await tick(dut)
    dut.load.value = 0
    await feed(dut, [[(1, lane) for lane in range(P)]] * 2, rng, seen)
    dut.rst.value = 1
    await tick(dut)
    dut.rst.value = 0
    await tick(dut, 2)
    assert dut.idle.value == 1
    await query(dut, rng, random_keys(rng, 5, 1 << SW), KMAX, seen)
