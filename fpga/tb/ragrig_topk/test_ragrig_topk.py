"""The top-K unit against sorted(): ties, every k, nothing at all, masked lanes, back-pressure."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick
from cocotb.triggers import FallingEdge

P, KMAX = PARAMETERS["P"], PARAMETERS["KMAX"]
SW, TW = 24, 32
MARGIN = 12
EMPTY = (None, None)
STEP = 3  # the queue's state in which a tie is decided
#: The tag of lane 0, and the sum of every lane; None is a masked lane.
Beat = tuple[int, list[int | None]]


async def begin(dut: Any) -> set[str]:
    """Resets; what the queue does about ties is noted from then on."""
    for name in ("load", "k", "in_valid", "in_sum", "in_tag", "drain", "out_ready"):
        getattr(dut, name).value = 0
    await reset(dut)
    ties = set[str]()
    cocotb.start_soon(watch(dut, ties))
    return ties


async def watch(dut: Any, ties: set[str]) -> None:
    queue = dut.i_queue
    while True:
        await FallingEdge(dut.clk)
        if queue.state_q.value == STEP:
            where = "behind the last" if queue.end_mark_q.value else "inside"
            ties.add(f"{'smaller' if queue.less_q.value else 'larger'} tag {where}")
            if not queue.less_q.value and queue.held_q.value:
                ties.add("the next key waited")


async def feed(dut: Any, beats: list[Beat], rng: random.Random, seen: set[str]) -> None:
    """Sends beats. What is in flight comes MARGIN later, a beat's tag a cycle before its sums."""
    line: list[Beat | None] = []
    left, now = list(beats), None
    while left or any(line) or now:
        if left and dut.ready.value and rng.random() < 0.9:
            line.append(left.pop(0))
        else:
            seen.add("stalled" if left and not dut.ready.value else "paused")
            line.append(None)
        coming = line.pop(0) if len(line) >= MARGIN - 4 else None
        sums = now[1] if now else [None] * P
        dut.in_valid.value = pack([int(one is not None) for one in sums], 1)
        dut.in_sum.value = pack([one or 0 for one in sums], SW)
        dut.in_tag.value = coming[0] if coming else rng.getrandbits(TW)
        await tick(dut)
        now = coming
    dut.in_valid.value = 0


async def drain(dut: Any, k: int, rng: random.Random, seen: set[str]) -> list[tuple[Any, Any]]:
    """Entries best first, with back-pressure."""
    dut.drain.value = 1
    await tick(dut)
    found: list[tuple[Any, Any]] = []
    for _ in range(40 * (KMAX + 40) * P + 4 * KMAX * KMAX):
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


async def query(dut: Any, rng: random.Random, beats: list[Beat], k: int, seen: set[str]) -> None:
    dut.load.value, dut.k.value = 1, k
    await tick(dut)
    dut.load.value = 0
    await feed(dut, beats, rng, seen)
    await tick(dut)
    found = await drain(dut, k, rng, seen)
    keys = [(s, tag + i) for tag, sums in beats for i, s in enumerate(sums) if s is not None]
    want: list[Any] = sorted(keys)[:k]
    want += [EMPTY] * (k - len(want))
    assert found == want, f"k {k}, {len(keys)} keys"


def beats_of(sums: list[int | None], tags: list[int]) -> list[Beat]:
    """Beats of P sums each, the last one not full."""
    cut = [sums[at : at + P] for at in range(0, len(sums), P)]
    return [(tag, part + [None] * (P - len(part))) for tag, part in zip(tags, cut, strict=False)]


def scattered(rng: random.Random, n: int) -> list[int]:
    """Tags of so many beats, in no order."""
    return [2 * P * at + rng.randrange(P) for at in rng.sample(range((1 << TW) // (2 * P)), n)]


def random_beats(rng: random.Random, n: int, sums: int) -> list[Beat]:
    return beats_of([rng.randrange(sums) for _ in range(n)], scattered(rng, -(-n // P)))


@cocotb.test()
async def random_keys_at_every_k(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    await begin(dut)
    every = sorted({1, 2, KMAX // 2, KMAX - 1, KMAX} & set(range(1, KMAX + 1)))
    for k in every * (1 if len(every) > 1 else 8):
        await query(dut, rng, random_beats(rng, 12 * P + 3, 1 << SW), k, seen)
    assert {"paused", "held", "taken"} <= seen


@cocotb.test()
async def ties_go_to_the_smaller_tag(dut: Any) -> None:
    rng, seen = seeded(1), set[str]()
    ties = await begin(dut)
    for sums, k in ((1, 1), (2, 1), (3, max(1, KMAX // 3)), (12, KMAX), (40, KMAX)):
        await query(dut, rng, random_beats(rng, 10 * P, sums), k, seen)
    falling = [P * at for at in range(12, 0, -1)]
    for tags in (falling, falling[::-1]):
        await query(dut, rng, beats_of([7] * (12 * P), tags), max(1, KMAX // 2), seen)
    wanted = {f"{which} tag behind the last" for which in ("smaller", "larger")}
    if KMAX > 1:
        wanted |= {"smaller tag inside", "larger tag inside"}
    if P > 1:
        wanted.add("the next key waited")
    assert wanted <= ties, ties


@cocotb.test()
async def fewer_keys_than_k_and_none(dut: Any) -> None:
    rng, seen = seeded(2), set[str]()
    await begin(dut)
    for n in (0, 1, KMAX - 1, KMAX, KMAX + 1):
        await query(dut, rng, random_beats(rng, n, 1 << SW), KMAX, seen)
    await query(dut, rng, [(5, [None] * P)] * 2, 1, seen)


@cocotb.test()
async def masked_lanes_are_not_seen(dut: Any) -> None:
    rng, seen = seeded(3), set[str]()
    await begin(dut)
    sums = [rng.randrange(1 << 10) if rng.random() < 0.4 else None for _ in range(20 * P)]
    await query(dut, rng, beats_of(sums, scattered(rng, 20)), KMAX, seen)


@cocotb.test()
async def descending_keys_stall_and_stay_exact(dut: Any) -> None:
    rng, seen = seeded(4), set[str]()
    await begin(dut)
    n, tags = 60 * P, [P * at for at in range(60)]
    await query(dut, rng, beats_of([n - at for at in range(n)], tags), KMAX, seen)
    assert "stalled" in seen or P == 1, "the lanes never waited for the queue"
    await query(dut, rng, beats_of(list(range(n)), tags), KMAX, seen)


@cocotb.test()
async def extreme_keys_are_told_from_none(dut: Any) -> None:
    rng, seen = seeded(5), set[str]()
    await begin(dut)
    top, tag = (1 << SW) - 1, (1 << TW) - P
    last: list[int | None] = [None] * (P - 1) + [top]
    await query(dut, rng, [(tag, last), (0, [0] + [None] * (P - 1))], KMAX, seen)
    await query(dut, rng, [(tag, last)], KMAX, seen)
    await query(dut, rng, [(tag, last), (0, [top] * P)], KMAX, seen)


@cocotb.test()
async def a_reset_in_the_middle_leaves_an_empty_queue(dut: Any) -> None:
    rng, seen = seeded(6), set[str]()
    await begin(dut)
    dut.load.value, dut.k.value = 1, KMAX
    await tick(dut)
    dut.load.value = 0
    await feed(dut, [(0, [1] * P)] * 2, rng, seen)
    dut.rst.value = 1
    await tick(dut)
    dut.rst.value = 0
    await tick(dut, 3)
    assert dut.idle.value == 1
    await query(dut, rng, random_beats(rng, 5, 1 << SW), KMAX, seen)
