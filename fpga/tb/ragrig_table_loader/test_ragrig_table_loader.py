"""The table loader: every row and pair of every table in its bank, none before it is released."""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

M, LW = PARAMETERS["M"], PARAMETERS["LW"]
ROW = M * LW
BEATS = 256 * ROW // 512
TABLES = 5


@cocotb.test()
async def tables_fill_the_banks_by_turns(dut: Any) -> None:
    await load(dut, biased=False)


@cocotb.test()
async def pairs_of_words_follow_each_table(dut: Any) -> None:
    await load(dut, biased=True)


async def load(dut: Any, biased: bool) -> None:
    """All tables, with pauses; where biased, 256 pairs of 16 bits behind each."""
    rng, seen = seeded(), set[str]()
    for name in ("valid", "release_i", "take"):
        getattr(dut, name).value = 0
    dut.biased.value = int(biased)
    await reset(dut)
    words = [rng.getrandbits(256 * ROW) for _ in range(TABLES)]
    pairs = [rng.getrandbits(256 * 32) for _ in range(TABLES)]
    beats = deque[int]()
    for word, pair in zip(words, pairs, strict=True):
        beats += _cut(word, BEATS) + (_cut(pair, 16) if biased else [])
    written: list[tuple[int, int, int]] = []
    paired: list[tuple[int, int, int]] = []
    held, taken, released = 0, 0, 0
    for _ in range(TABLES * 60 * max(256, BEATS)):
        give = bool(beats) and rng.random() < 0.8
        dut.valid.value = int(give)
        dut.data.value = beats[0] if give else 0
        take = bool(dut.loaded.value) and held < 1 and rng.random() < 0.3
        release = held > 0 and rng.random() < 0.2 / max(256, BEATS)
        dut.take.value, dut.release_i.value = int(take), int(release)
        held, taken, released = held + take - release, taken + take, released + release
        await _settled()
        if give and dut.pop.value:
            beats.popleft()
        seen |= {"waits"} if give and not dut.pop.value and len(written) >= 512 else set()
        await tick(dut)
        if dut.we.value:
            written.append((int(dut.bank.value), int(dut.code.value), int(dut.row.value)))
            assert (len(written) - 1) // 256 < released + 2, "wrote into a bank that is read"
        if dut.words_we.value:
            paired.append((int(dut.bank.value), int(dut.code.value), int(dut.words.value)))
        assert taken <= len(paired if biased else written) // 256
        if released == TABLES:
            break
    assert released == TABLES
    assert "waits" in seen, "the banks were never both in use"
    rows = (1 << ROW) - 1
    wanted = [(t % 2, c, words[t] >> ROW * c & rows) for t in range(TABLES) for c in range(256)]
    assert written == wanted
    low = (1 << 32) - 1
    wanted = [(t % 2, c, pairs[t] >> 32 * c & low) for t in range(TABLES) for c in range(256)]
    assert paired == (wanted if biased else [])


def _cut(word: int, beats: int) -> list[int]:
    return [word >> 512 * i & (1 << 512) - 1 for i in range(beats)]


async def _settled() -> None:
    from cocotb.triggers import Timer

    await Timer(100, "ps")
