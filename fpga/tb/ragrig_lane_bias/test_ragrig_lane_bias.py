"""The bias of a code: a word for each of its bytes on top of its list's, with saturation."""

from __future__ import annotations

from typing import Any

import cocotb
from clocked import PARAMETERS, seeded, tick
from cocotb.clock import Clock

SW = PARAMETERS["SW"]
MOST = (1 << SW) - 1


@cocotb.test()
async def words_of_both_bytes_are_added(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    for name in ("we", "bank", "code", "words", "in_bank", "in_bias", "in_biased", "list_bias"):
        getattr(dut, name).value = 0
    cocotb.start_soon(Clock(dut.clk, 2, "ns").start())
    await tick(dut)
    tables = [[(rng.getrandbits(16), rng.getrandbits(16)) for _ in range(256)] for _ in range(2)]
    dut.we.value = 1
    for bank, table in enumerate(tables):
        for code, (low, high) in enumerate(table):
            dut.bank.value, dut.code.value, dut.words.value = bank, code, high << 16 | low
            await tick(dut)
    dut.we.value = 0
    line: list[tuple[int, int, bool, int]] = []
    for _ in range(300):
        bank, bias, biased = rng.getrandbits(1), rng.getrandbits(16), rng.random() < 0.8
        own = rng.choice((rng.getrandbits(SW), MOST - rng.getrandbits(17), 0))
        line.append((bank, bias, biased, max(0, own)))
        dut.in_bank.value, dut.in_bias.value = bank, bias
        # What comes later belongs to codes that came before.
        dut.in_biased.value = int(line[-3][2]) if len(line) > 2 else 0
        dut.list_bias.value = line[-4][3] if len(line) > 3 else 0
        await tick(dut)
        if len(line) > 3:
            bank, bias, biased, own = line[-4]
            words = tables[bank][bias & 255][0] + tables[bank][bias >> 8][1] if biased else 0
            seen.add("saturated" if words + own > MOST else "plain" if biased else "none")
            assert dut.out_bias.value == min(MOST, words + own)
    assert seen == {"saturated", "plain", "none"}
