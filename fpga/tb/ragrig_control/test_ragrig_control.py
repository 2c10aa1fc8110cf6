"""The control port: arguments by byte, channels, status, start to done, interrupts, slow hosts."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from clocked import PARAMETERS, reset, seeded, tick

from retrieval_node.backends.fpga.registers import REGISTERS, Ctrl

CHANNELS = PARAMETERS["CHANNELS"]
CTRL, GIE, IER, ISR = (REGISTERS[name].offset for name in ("ctrl", "gie", "ier", "isr"))
STATUS = [r for r in REGISTERS.values() if r.offset >= 0x300]


async def begin(dut: Any) -> None:
    for name in (
        "awvalid", "wvalid", "bready", "arvalid", "rready", "wstrb", "awaddr", "wdata", "araddr",
    ):  # fmt: skip
        getattr(dut, f"s_axi_{name}").value = 0
    dut.finish.value, dut.idle.value, dut.status.value = 0, 1, 0
    await reset(dut)


async def write(dut: Any, rng: random.Random, offset: int, value: int, strobe: int = 15) -> None:
    """The two halves may come apart, and the answer may be taken late."""
    dut.s_axi_awaddr.value, dut.s_axi_wdata.value = offset, value
    dut.s_axi_wstrb.value = strobe
    first, other = rng.sample(["awvalid", "wvalid"], 2)
    getattr(dut, f"s_axi_{first}").value = 1
    await tick(dut, rng.randrange(3))
    getattr(dut, f"s_axi_{other}").value = 1
    while not dut.s_axi_awready.value:
        await tick(dut)
    assert dut.s_axi_wready.value == 1
    await tick(dut)
    dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = 0
    await tick(dut, rng.randrange(3))
    assert (dut.s_axi_bvalid.value, dut.s_axi_bresp.value) == (1, 0)
    dut.s_axi_bready.value = 1
    await tick(dut)
    dut.s_axi_bready.value = 0
    assert dut.s_axi_bvalid.value == 0


async def read(dut: Any, rng: random.Random, offset: int) -> int:
    dut.s_axi_araddr.value, dut.s_axi_arvalid.value = offset, 1
    while not dut.s_axi_arready.value:
        await tick(dut)
    await tick(dut)
    dut.s_axi_arvalid.value = 0
    await tick(dut, rng.randrange(3))
    assert (dut.s_axi_rvalid.value, dut.s_axi_rresp.value) == (1, 0)
    found = int(dut.s_axi_rdata.value)
    dut.s_axi_rready.value = 1
    await tick(dut)
    dut.s_axi_rready.value = 0
    return found


@cocotb.test()
async def arguments_and_channels_keep_what_was_written(dut: Any) -> None:
    rng = seeded()
    await begin(dut)
    held: dict[int, int] = {}
    offsets = [0x10 + 4 * i for i in range(20)]
    offsets += [base + 4 * i for base in (0x100, 0x200) for i in range(2 * CHANNELS)]
    for _ in range(3):
        for offset in rng.sample(offsets, len(offsets)):
            value, strobe = rng.getrandbits(32), rng.choice((15, 15, rng.randrange(16)))
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
            await write(dut, rng, offset, value, strobe)
            held[offset] = held.get(offset, 0) & ~mask | value & mask
    for offset, value in held.items():
        assert await read(dut, rng, offset) == value, hex(offset)
    ranges = {0x200: dut.biases, 0x100: dut.codes, 0x10: dut.args}
    for offset, value in held.items():
        base = next(first for first in ranges if offset >= first)
        assert int(ranges[base].value) >> (offset - base) * 8 & 0xFFFFFFFF == value
    for base in (0x100, 0x200):
        assert await read(dut, rng, base + 8 * CHANNELS) == 0, "a channel that is not there"
    assert await read(dut, rng, 0xFFC) == 0


@cocotb.test()
async def status_is_read_where_the_map_says(dut: Any) -> None:
    rng = seeded(1)
    await begin(dut)
    status = rng.getrandbits(28 * 32)
    dut.status.value = status
    for register in STATUS:
        at = (register.offset - 0x300) * 8
        assert await read(dut, rng, register.offset) == status >> at & 0xFFFFFFFF
        await write(dut, rng, register.offset, 0)  # ignored
        assert await read(dut, rng, register.offset) == status >> at & 0xFFFFFFFF


@cocotb.test()
async def from_start_to_done(dut: Any) -> None:
    rng = seeded(2)
    await begin(dut)
    assert await read(dut, rng, CTRL) == Ctrl.IDLE
    await write(dut, rng, GIE, 1)
    await write(dut, rng, IER, 1)
    for interrupts in (True, False):
        await write(dut, rng, IER, int(interrupts))
        await write(dut, rng, CTRL, Ctrl.START)
        assert dut.start.value == 1
        dut.idle.value = 0
        assert await read(dut, rng, CTRL) == Ctrl.START
        await write(dut, rng, CTRL, Ctrl.START)  # ignored
        dut.finish.value = 1
        await tick(dut)
        dut.finish.value, dut.idle.value = 0, 1
        assert dut.start.value == 0
        assert dut.interrupt.value == int(interrupts)
        assert await read(dut, rng, CTRL) == Ctrl.DONE | Ctrl.IDLE | Ctrl.READY
        assert await read(dut, rng, CTRL) == Ctrl.IDLE, "done clears when it is read"
        assert await read(dut, rng, ISR) == int(interrupts)
        await write(dut, rng, ISR, int(interrupts))  # toggles
        assert dut.interrupt.value == 0


@cocotb.test()
async def a_reset_forgets_everything(dut: Any) -> None:
    rng = seeded(3)
    await begin(dut)
    await write(dut, rng, 0x10, 77)
    await write(dut, rng, CTRL, Ctrl.START)
    dut.s_axi_awvalid.value = 1  # in the middle of a write
    await tick(dut)
    await begin(dut)
    assert dut.start.value == 0
    assert await read(dut, rng, 0x10) == 0
