"""Lanes side by side: each lane's own sum and tag, with the biases that came with its code."""

from __future__ import annotations

from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

P, M, LW, SW, TW = (PARAMETERS[name] for name in ("P", "M", "LW", "SW", "TW"))
LATENCY = 3 + (M - 1).bit_length()
BIASES = bool(PARAMETERS["BIASES"])


@cocotb.test()
async def sums_and_tags_of_every_lane(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    for name in (
        "table_we", "words_we", "in_valid", "in_bank", "in_codes", "in_bias", "in_tag",
        "in_biased", "in_biases",
    ):  # fmt: skip
        getattr(dut, name).value = 0
    await reset(dut)
    tables = [[[rng.getrandbits(LW) for _ in range(M)] for _ in range(256)] for _ in range(2)]
    own = [[(rng.getrandbits(LW), rng.getrandbits(LW)) for _ in range(256)] for _ in range(2)]
    dut.table_we.value = dut.words_we.value = 1
    for bank, table in enumerate(tables):
        for code, row in enumerate(table):
            dut.table_bank.value, dut.table_code.value = bank, code
            dut.table_row.value, dut.words.value = pack(row, LW), pack(list(own[bank][code]), 16)
            await tick(dut)
    dut.table_we.value = dut.words_we.value = 0
    line: list[dict[int, tuple[int, int]]] = []
    before: Any = 0
    for _ in range(120):
        codes = [[rng.getrandbits(8) for _ in range(M)] for _ in range(P)]
        mask, bank = rng.choice((0, (1 << P) - 1, rng.getrandbits(P))), rng.getrandbits(1)
        bias = rng.choice((rng.getrandbits(SW), (1 << SW) - 1 - rng.getrandbits(LW), 0))
        tag = rng.choice((rng.getrandbits(TW), (1 << TW) - 1 - P))
        dut.in_valid.value, dut.in_bank.value, dut.in_bias.value = mask, bank, bias
        biased, biases = rng.random() < 0.7, [rng.getrandbits(16) for _ in range(P)]
        dut.in_tag.value, dut.in_biased.value = tag, int(biased)
        dut.in_biases.value = pack(biases, 16)
        dut.in_codes.value = pack([c for code in codes for c in code], 8)
        wanted = {}
        for i in range(P):
            total = bias + sum(tables[bank][c][j] for j, c in enumerate(codes[i]))
            if BIASES and biased:
                total += own[bank][biases[i] & 255][0] + own[bank][biases[i] >> 8][1]
                seen.add("biased")
            seen.add("saturated" if total >= 1 << SW else "plain")
            if mask >> i & 1:
                wanted[i] = (min(total, (1 << SW) - 1), tag + i)
        line.append(wanted)
        await tick(dut)
        if len(line) >= LATENCY:
            sums = int(dut.out_sum.value)
            valid = int(dut.out_valid.value)
            found = {
                i: (sums >> SW * i & (1 << SW) - 1, int(before) + i)
                for i in range(P)
                if valid >> i & 1
            }
            assert found == line[-LATENCY]
        before = dut.out_tag.value  # a cycle before the sums
    assert seen == {"saturated", "plain"} | ({"biased"} if BIASES else set())
