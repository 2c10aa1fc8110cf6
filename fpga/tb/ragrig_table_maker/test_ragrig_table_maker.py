"""The table maker: every entry of every table, however its two streams pause."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
from clocked import PARAMETERS, reset, seeded, tick
from cocotb.triggers import Timer
from made import BEAT, MOST_SUM, Book, Maker, Vector, vector_of
from numpy.typing import NDArray

M, LW, U, STEPS = (PARAMETERS[name] for name in ("M", "LW", "U", "STEPS"))
ROWS_PER_BEAT = max(1, 512 // (M * LW))


class Bench:
    """Both streams; what is given and taken where ``give`` and ``take`` are shares of cycles."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.rng = seeded()
        self.numpy = np.random.default_rng(cocotb.RANDOM_SEED)
        self.give, self.take = 1.0, 1.0
        self.seen = set[str]()
        self.cycle = 0
        self.entered, self.left = list[int](), list[int]()
        self.beats, self.found = deque[int](), list[int]()

    async def begin(self, maker: Maker, book: Book | None) -> None:
        """Resets the maker for a start that reads a codebook, or not."""
        self.beats.clear()
        self.found.clear()
        self.dut.book.value, self.dut.steps.value = int(book is not None), maker.steps
        self.dut.in_valid.value = self.dut.out_pop.value = 0
        self.dut.rst.value = 1
        await tick(self.dut, 2)
        self.dut.rst.value = 0
        await tick(self.dut)
        if book is not None:
            self.put(book.record())

    def put(self, record: NDArray[np.uint8]) -> None:
        raw = record.tobytes()
        cuts = range(0, len(raw), BEAT)
        self.beats += [int.from_bytes(raw[at : at + BEAT], "little") for at in cuts]

    async def step(self) -> None:
        """One cycle of both streams."""
        dut = self.dut
        give = bool(self.beats) and self.rng.random() < self.give
        dut.in_valid.value = int(give)
        dut.in_data.value = self.beats[0] if give else self.rng.getrandbits(512)
        take = bool(dut.out_valid.value) and self.rng.random() < self.take
        dut.out_pop.value = int(take)
        await Timer(100, "ps")
        if take:
            self.found.append(int(dut.out_data.value))
            self.left.append(self.cycle)
        elif dut.out_valid.value:
            self.seen.add("output waits")
        if give and dut.in_pop.value:
            self.beats.popleft()
            self.entered.append(self.cycle)
        elif give:
            self.seen.add("input waits")
        elif self.beats:
            self.seen.add("no input")
        await tick(dut)
        self.cycle += 1

    async def until(self, beats: int) -> None:
        """Until so many beats have come out since ``begin``."""
        for _ in range(60_000):
            if len(self.found) >= beats:
                return
            await self.step()
        raise AssertionError(f"{len(self.found)} of {beats} beats came out")

    async def check(self, book: Book, vectors: list[Vector]) -> None:
        """Tables of vectors that follow each other."""
        maker = book.maker
        for one in vectors:
            self.put(one.record(maker, self.numpy))
        before = len(self.found)
        await self.until(before + len(vectors) * maker.table_beats)
        dtype = np.uint16 if LW == 16 else np.uint8
        wanted = np.stack([one.table(book) for one in vectors]).astype(dtype)
        raw = b"".join(beat.to_bytes(BEAT, "little") for beat in self.found[before:])
        np.testing.assert_array_equal(np.frombuffer(raw, dtype).reshape(wanted.shape), wanted)
        for _ in range(40):
            await self.step()
        assert len(self.found) == before + len(vectors) * maker.table_beats, "beats too many"


async def ready(dut: Any) -> Bench:
    dut.in_valid.value = dut.out_pop.value = dut.book.value = 0
    dut.steps.value = 1
    await reset(dut)
    return Bench(dut)


def maker_of(steps: int = min(STEPS, 2)) -> Maker:
    return Maker(M, LW, U, steps)


@cocotb.test()
async def tables_with_pauses(dut: Any) -> None:
    bench = await ready(dut)
    for steps in sorted({1, STEPS}):
        book = Book.of(maker_of(steps), bench.numpy)
        await bench.begin(book.maker, book)
        for give, take in ((1.0, 1.0), (0.05, 1.0), (0.7, 0.4), (1.0, 0.1)):
            bench.give, bench.take = 1.0 if dut.booking.value else give, take
            shifts = bench.numpy.integers(0, 12, 2).tolist()
            await bench.check(book, [vector_of(book, bench.numpy, shift) for shift in shifts])
    assert bench.seen == {"output waits", "input waits", "no input"}


@cocotb.test()
async def a_word_per_cycle(dut: Any) -> None:
    """A table takes as long as its words or its beats; the first row comes when it is said to."""
    bench = await ready(dut)
    for steps in sorted({1, STEPS}):
        book = Book.of(maker_of(steps), bench.numpy)
        await bench.begin(book.maker, book)
        bench.put(vector_of(book, bench.numpy, 3).record(book.maker, bench.numpy))
        await bench.until(book.maker.table_beats)
        levels = U.bit_length() - 1
        first = bench.left[-book.maker.table_beats] - bench.entered[-1]
        assert first == 12 + levels + steps * ROWS_PER_BEAT
        await bench.check(book, [vector_of(book, bench.numpy, 3) for _ in range(4)])
        per_table = max(256 * steps, book.maker.table_beats)
        firsts = bench.left[-4 * book.maker.table_beats :: book.maker.table_beats]
        # Beats that have waited in the FIFO make up for a table's first ones.
        assert [b - a for a, b in itertools.pairwise(firsts[1:])] == [per_table] * 2


@cocotb.test()
async def extreme_values(dut: Any) -> None:
    bench = await ready(dut)
    rng = bench.numpy
    maker = maker_of()
    book = Book.of(maker, rng)
    await bench.begin(maker, book)
    vectors = [vector_of(book, rng, shift) for shift in (0, 1, 15, 29, 30, 31, 32, 33, 40, 64)]
    vectors += [vector_of(book, rng, 7, factor) for factor in (0, 1, 32768, 65534, 65535)]
    vectors += [vector_of(book, rng, 0, over=over) for over in (1, 4, 9)]
    vectors.append(vector_of(book, rng, 1 << 31))
    at = [vectors[number] for number in (0, 3, 10)]
    vectors += [replace(one, sum_shift=shift) for one, shift in zip(at, (0, 31, 37), strict=True)]
    ends = np.where(rng.random((M, maker.steps * U)) < 0.5, -32768, 32767).astype(np.int16)
    vectors.append(replace(vectors[2], components=ends, sum_shift=14))
    wild = rng.integers(-(1 << 31), 1 << 31, M).astype(np.int32)
    vectors += [replace(vectors[2], low=wild, sum_shift=shift) for shift in (8, 16)]
    sums = np.stack([one.sums(book) for one in vectors])
    tables = np.stack([one.table(book) for one in vectors])
    assert (sums > MOST_SUM).any(axis=(1, 2)).sum() >= 5, "too few tables saturate"
    assert tables.min() == 0
    assert tables.max() == (255 if LW == 8 else 65534)
    assert min(int(one.low.min()) for one in vectors) < -(1 << 20), "no offset is negative"
    assert max(int(one.low.max()) for one in vectors) > 1 << 20, "no offset is positive"
    assert np.unique(tables).size > (200 if LW == 8 else 5000)
    await bench.check(book, vectors)


@cocotb.test()
async def a_codebook_stays_until_the_next(dut: Any) -> None:
    bench = await ready(dut)
    maker = maker_of()
    for _ in range(2):
        book = Book.of(maker, bench.numpy)
        await bench.begin(maker, book)
        assert dut.booking.value == 1
        await bench.check(book, [vector_of(book, bench.numpy, 2)])
        for _ in range(2):
            await bench.begin(maker, None)
            assert dut.booking.value == 0
            bench.give = 0.5
            await bench.check(book, [vector_of(book, bench.numpy, shift) for shift in (4, 33)])


@cocotb.test()
async def a_codebook_alone_is_taken_in(dut: Any) -> None:
    """A start may have nothing to scan: the codebook is complete all the same."""
    bench = await ready(dut)
    maker = maker_of()
    book = Book.of(maker, bench.numpy)
    await bench.begin(maker, book)
    for _ in range(maker.book_beats):
        assert dut.booking.value == 1
        await bench.step()
    assert dut.booking.value == 0
    await bench.begin(maker, None)
    await bench.check(book, [vector_of(book, bench.numpy, 5)])


@cocotb.test()
async def a_reset_in_mid_flight(dut: Any) -> None:
    bench = await ready(dut)
    maker = maker_of()
    book = Book.of(maker, bench.numpy)
    vectors = [vector_of(book, bench.numpy, shift) for shift in (1, 2)]
    stops = [maker.book_beats // 2, maker.book_beats + 3]
    stops += [maker.book_beats + maker.vector_beats + more for more in (4, 9, 40, 270)]
    for cycles in stops:
        await bench.begin(maker, book)
        for one in vectors:
            bench.put(one.record(maker, bench.numpy))
        for _ in range(cycles):
            await bench.step()
        whole = not dut.booking.value
        await bench.begin(maker, None if whole else book)
        assert dut.out_valid.value == 0
        await bench.check(book, vectors[::-1])
