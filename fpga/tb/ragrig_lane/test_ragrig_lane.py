"""The decode lane: sums, saturation, idle cycles, and a table that loads while one is read."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

M, LW, SW = PARAMETERS["M"], PARAMETERS["LW"], PARAMETERS["SW"]
LATENCY = 3 + (M - 1).bit_length()
SUM_MAX = (1 << SW) - 1
Table = list[list[int]]


def random_table(rng: random.Random, most: int = (1 << LW) - 1) -> Table:
    return [[rng.randint(0, most) for _ in range(M)] for _ in range(256)]


def idle(dut: Any) -> None:
    for name in ("table_we", "table_bank", "table_code", "table_row", "in_valid", "in_bank"):
        getattr(dut, name).value = 0
    dut.in_code.value, dut.in_bias.value = 0, 0


async def load(dut: Any, bank: int, table: Table) -> None:
    for code, row in enumerate(table):
        dut.table_we.value, dut.table_bank.value = 1, bank
        dut.table_code.value, dut.table_row.value = code, pack(row, LW)
        await tick(dut)
    dut.table_we.value = 0


def expected(table: Table, code: list[int], bias: int) -> int:
    return min(SUM_MAX, bias + sum(table[c][j] for j, c in enumerate(code)))


async def scan(
    dut: Any, rng: random.Random, bank: int, table: Table, cases: list[tuple[list[int], int] | None]
) -> None:
    """Feeds codes with their biases (None: an idle cycle) and checks every output cycle."""
    line: list[tuple[list[int], int] | None] = [*cases, *([None] * LATENCY)]
    for at, case in enumerate(line):
        dut.in_valid.value, dut.in_bank.value = int(case is not None), bank
        dut.in_code.value = pack(case[0], 8) if case else rng.getrandbits(8 * M)
        ending = line[at - LATENCY + 1] if at >= LATENCY - 1 else None
        dut.in_bias.value = ending[1] if ending else rng.getrandbits(SW)
        await tick(dut)
        assert dut.out_valid.value == int(ending is not None), f"cycle {at}"
        if ending:
            assert dut.out_sum.value == expected(table, *ending), f"cycle {at}: {ending}"


def code_of(rng: random.Random) -> list[int]:
    return [rng.choice((0, 255, rng.randint(0, 255))) for _ in range(M)]


@cocotb.test()
async def sums_with_idle_cycles(dut: Any) -> None:
    rng = seeded()
    idle(dut)
    await reset(dut)
    table = random_table(rng)
    await load(dut, 0, table)
    cases = [(code_of(rng), rng.getrandbits(16)) if rng.random() < 0.7 else None for _ in range(80)]
    assert None in cases
    await scan(dut, rng, 0, table, cases)


@cocotb.test()
async def sums_saturate(dut: Any) -> None:
    rng = seeded(1)
    idle(dut)
    await reset(dut)
    table = [[(1 << LW) - 1] * M, *random_table(rng)[1:]]
    await load(dut, 1, table)
    top = expected(table, [0] * M, 0)
    biases = [0, SUM_MAX - top, SUM_MAX - top + 1, SUM_MAX - top - 1, SUM_MAX]
    cases = [([0] * M, min(SUM_MAX, max(0, bias))) for bias in biases]
    sums = [bias + M * ((1 << LW) - 1) for _, bias in cases]
    assert any(total > SUM_MAX for total in sums), "nothing saturates"
    await scan(dut, rng, 1, table, cases)


@cocotb.test()
async def a_bank_loads_while_the_other_is_read(dut: Any) -> None:
    rng = seeded(2)
    idle(dut)
    await reset(dut)
    tables = [random_table(rng), random_table(rng)]
    await load(dut, 0, tables[0])
    loading = cocotb.start_soon(load(dut, 1, tables[1]))
    await scan(dut, rng, 0, tables[0], [(code_of(rng), at) for at in range(100)])
    await loading
    await scan(dut, rng, 1, tables[1], [(code_of(rng), 7 * at) for at in range(40)])


@cocotb.test()
async def a_reset_forgets_what_is_in_flight(dut: Any) -> None:
    rng = seeded(3)
    idle(dut)
    await reset(dut)
    dut.in_valid.value = 1
    await tick(dut, 2)
    dut.in_valid.value, dut.rst.value = 0, 1
    await tick(dut)
    dut.rst.value = 0
    for _ in range(LATENCY + 2):
        assert dut.out_valid.value == 0
        await tick(dut)
    table = random_table(rng)
    await load(dut, 0, table)
    await scan(dut, rng, 0, table, [(code_of(rng), 1)])
