"""The sequencer: products of its arguments, errors of either side, and waiting for quiet."""

from __future__ import annotations

from typing import Any

import cocotb
from clocked import reset, seeded, tick

NONE, BAD_ARGUMENT, AXI_READ, AXI_WRITE = range(4)


async def begin(dut: Any, queries: int, nprobe: int, bad: int = 0) -> None:
    for name in ("written", "booking", "read_bad", "write_bad", "quiet"):
        getattr(dut, name).value = 0
    dut.num_queries.value, dut.nprobe.value, dut.bad_args.value = queries, nprobe, bad
    dut.start.value = 1


async def until(dut: Any, name: str) -> None:
    for _ in range(100):
        if getattr(dut, name).value:
            return
        await tick(dut)
    raise AssertionError(f"{name} does not come")


async def finish(dut: Any) -> None:
    await until(dut, "finish")
    dut.start.value = 0
    await tick(dut)
    assert dut.idle.value == 1
    assert dut.run.value == 0


@cocotb.test()
async def descriptors_are_counted(dut: Any) -> None:
    rng = seeded()
    dut.start.value = 0
    await begin(dut, 1, 1)
    dut.start.value = 0
    await reset(dut)
    sizes = [(1, 1), (1, 2), (3, 5), (1, 1 << 20), (65535, 513)]
    for queries, nprobe in [
        *sizes,
        *((rng.randrange(1, 99), rng.randrange(1, 99)) for _ in range(9)),
    ]:
        await begin(dut, queries, nprobe)
        await until(dut, "fetch_lists")
        assert dut.list_beats.value == -(-queries * nprobe // 2)
        await tick(dut, 3)
        dut.written.value = queries
        await tick(dut, 4)
        assert dut.stop.value == 1, "it waits for the buses"
        dut.quiet.value = 1
        await finish(dut)
        assert dut.error.value == NONE


@cocotb.test()
async def a_start_waits_for_its_codebook(dut: Any) -> None:
    dut.start.value = 0
    await begin(dut, 1, 1)
    dut.start.value = 0
    await reset(dut)
    for bad in (0, 1):
        await begin(dut, 3, 2)
        dut.booking.value, dut.quiet.value = 1, 1
        await until(dut, "fetch_lists")
        dut.written.value = 3
        await tick(dut, 20)
        assert (dut.stop.value, dut.finish.value) == (0, 0)
        dut.booking.value, dut.read_bad.value = bad, bad
        await finish(dut)
        assert dut.error.value == (AXI_READ if bad else NONE)


@cocotb.test()
async def errors_end_a_start(dut: Any) -> None:
    dut.start.value = 0
    await begin(dut, 1, 1)
    dut.start.value = 0
    await reset(dut)
    await begin(dut, 1, 1, bad=1)
    await finish(dut)
    assert dut.error.value == BAD_ARGUMENT
    for read, write, code in ((1, 0, AXI_READ), (0, 1, AXI_WRITE), (1, 1, AXI_READ)):
        await begin(dut, 9, 2)
        await until(dut, "fetch_lists")
        await tick(dut, 5)
        dut.written.value, dut.read_bad.value, dut.write_bad.value = 4, read, write
        await tick(dut)
        dut.read_bad.value = dut.write_bad.value = 0
        await tick(dut, 3)
        assert (dut.stop.value, dut.finish.value) == (1, 0), "it waits for the buses"
        dut.quiet.value = 1
        await finish(dut)
        assert (dut.error.value, dut.error_query.value) == (code, 4)
