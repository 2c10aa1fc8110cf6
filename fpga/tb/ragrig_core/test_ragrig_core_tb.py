"""The whole accelerator through its buses: random starts bit for bit, and what goes wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
from clocked import PARAMETERS, seeded
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiReadBus,
    AxiSlave,
    AxiSlaveRead,
    MemoryRegion,
)  # fmt: skip
from made import Maker
from starts import Shape, Start, make_start

from retrieval_node.backends.fpga.registers import REGISTERS, VERSION, Ctrl, Error, Flags

CHANNELS, M, LW, SW, KMAX = 2, PARAMETERS["M"], PARAMETERS["LW"], PARAMETERS["SW"], 16
FEATURES, MACS, STEPS = Flags(PARAMETERS["FEATURES"]), PARAMETERS["MACS"], PARAMETERS["STEPS"]
P = CHANNELS * 64 // M
MEMORY_BYTES = 1 << 20
#: Empty, one code, around P, and more than one burst.
SIZES = (0, 1, P - 1, P, P + 1, 3 * P + 2, 20 * P, 37 * P + 5, 2 * P)


class Bench:
    """Bus models on one memory, and a host that starts and polls."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.rng = seeded()
        self.memory = bytearray(MEMORY_BYTES)
        region = MemoryRegion(MEMORY_BYTES, mem=self.memory)
        reset = {"reset": dut.ap_rst_n, "reset_active_level": False}

        # Names are looked up one by one: what cocotb lists of a module, Verilator cannot write.
        def ports(kind: Any, prefix: str) -> Any:
            return kind.from_prefix(dut, prefix, case_insensitive=False)

        self.control = AxiLiteMaster(ports(AxiLiteBus, "s_axi_control"), dut.ap_clk, **reset)
        host = AxiSlave(ports(AxiBus, "m_axi_host"), dut.ap_clk, target=region, **reset)
        codes = [
            AxiSlaveRead(
                ports(AxiReadBus, f"m_axi_codes_{c:02d}"), dut.ap_clk, target=region, **reset
            )
            for c in range(CHANNELS)
        ]
        reads = [host.read_if, *codes]
        self.channels = [channel for one in reads for channel in (one.ar_channel, one.r_channel)]
        write = host.write_if
        self.channels += [write.aw_channel, write.w_channel, write.b_channel]

    def pause(self, share: float) -> None:
        """Makes every channel of the memory idle for a share of the cycles."""
        for channel in self.channels:
            channel.set_pause_generator(
                self._pauses(share) if share else iter(itertools.repeat(False))
            )

    def _pauses(self, share: float) -> Iterator[bool]:
        while True:
            yield self.rng.random() < share

    async def reset(self) -> None:
        self.dut.ap_rst_n.value = 0
        await ClockCycles(self.dut.ap_clk, 4)
        self.dut.ap_rst_n.value = 1
        await ClockCycles(self.dut.ap_clk, 4)

    async def read(self, name: str) -> int:
        register = REGISTERS[name]
        low = int(await self.control.read_dword(register.offset))
        if not register.wide:
            return low
        return low | int(await self.control.read_dword(register.offset + 4)) << 32

    async def write(self, name: str, value: int, channel: int = 0) -> None:
        register = REGISTERS[name]
        await self.control.write_dword(register.at(channel), value & 0xFFFFFFFF)
        if register.wide:
            await self.control.write_dword(register.at(channel) + 4, value >> 32)

    async def begin(self, start: Start) -> None:
        self.memory[:] = start.memory.tobytes()
        for name, value in start.arguments.items():
            await self.write(name, value)
        for channel, address in enumerate(start.codes):
            await self.write("codes", address, channel)
        for channel, address in enumerate(start.biases):
            await self.write("biases", address, channel)
        await self.write("ctrl", int(Ctrl.START))

    async def end(self) -> None:
        for _ in range(4000):
            state = Ctrl(await self.read("ctrl"))
            if Ctrl.DONE in state:
                assert Ctrl.IDLE in state
                assert Ctrl.READY in state
                assert not Ctrl(await self.read("ctrl")) & Ctrl.DONE, "done is cleared by a read"
                return
            await ClockCycles(self.dut.ap_clk, 20)
        raise AssertionError("the start does not end")

    async def run(self, start: Start) -> None:
        """One start, its results and its counters."""
        await self.begin(start)
        await self.end()
        assert await self.read("error") == Error.NONE
        start.check(np.frombuffer(bytes(self.memory), np.uint8))
        assert await self.read("queries_done") == start.shape.queries
        assert await self.read("codes_scanned") == int(start.sizes.sum())
        beats = int((-(-start.sizes.astype(np.int64) // P)).sum())
        assert await self.read("bytes_read") == beats * 64 * CHANNELS
        assert await self.read("cycles") > beats


async def ready(dut: Any) -> Bench:
    cocotb.start_soon(Clock(dut.ap_clk, 2, "ns").start())
    bench = Bench(dut)
    await bench.reset()
    return bench


def shape(**changes: Any) -> Shape:
    given = {
        "channels": CHANNELS, "m": M, "lw": LW, "sw": SW, "queries": 3, "nprobe": 5, "k": 10,
        "per_query": False, "sizes": SIZES,
    }  # fmt: skip
    return Shape(**(given | changes))


def starts(seed: int, shapes: list[Shape]) -> Iterator[Start]:
    for number, one in enumerate(shapes):
        yield make_start(one, np.random.default_rng((seed, number)), MEMORY_BYTES)


@cocotb.test()
async def the_build_is_told(dut: Any) -> None:
    bench = await ready(dut)
    told = {
        "version": VERSION, "build_m": M, "build_channels": CHANNELS, "build_lw": LW,
        "build_sw": SW, "build_kmax": KMAX, "build_features": FEATURES,
        "build_macs": MACS if Flags.VECTORS in FEATURES else 0,
        "build_steps": STEPS if Flags.VECTORS in FEATURES else 0,
    }  # fmt: skip
    for name, value in told.items():
        assert await bench.read(name) == value, name
    assert await bench.read("ctrl") == Ctrl.IDLE
    await bench.write("ids", 0x1234_5678_9ABC)
    assert await bench.read("ids") == 0x1234_5678_9ABC


@cocotb.test()
async def random_starts(dut: Any) -> None:
    bench = await ready(dut)
    shapes = [
        shape(), shape(per_query=True), shape(k=1, nprobe=1),
        shape(k=KMAX, nprobe=9, per_query=True), shape(distinct=2, nprobe=7),
        shape(distinct=1, per_query=True, queries=2, k=KMAX),
        shape(queries=6, nprobe=2, k=9), shape(top=0, k=8), shape(queries=1, sizes=(0,), nprobe=1),
    ]  # fmt: skip
    for start in starts(cocotb.RANDOM_SEED, shapes):
        await bench.run(start)


@cocotb.test(skip=Flags.BIASES not in FEATURES)
async def masks_and_biases_of_codes(dut: Any) -> None:
    bench = await ready(dut)
    both = {"masked": True, "biased": True, "per_query": True}
    shapes = [
        shape(masked=True), shape(biased=True, per_query=True, k=KMAX, nprobe=9), shape(**both),
        shape(**both, distinct=1, nprobe=7), shape(**both, queries=6, nprobe=2, k=9),
        shape(per_query=True), shape(**both, queries=1, sizes=(3 * P,), nprobe=1),
    ]  # fmt: skip
    for number, start in enumerate(starts(23, shapes)):
        bench.pause(0.3 * (number % 2))
        await bench.run(start)
    bench.pause(0)
    for name in ("masks", "bias_table", "biases"):
        bad, good = (next(starts(29, [shape(**both)])) for _ in range(2))
        if name == "biases":
            bad.biases[0] = MEMORY_BYTES
        else:
            bad.arguments[name] = MEMORY_BYTES
        await bench.begin(bad)
        await bench.end()
        assert await bench.read("error") == Error.AXI_READ, name
        await bench.run(good)


def maker_of(steps: int) -> Maker:
    return Maker(M, LW, MACS, steps)


def held(start: Start, **changes: Any) -> Start:
    """A start that makes its tables of the codebook that another one has read."""
    assert start.book is not None
    rng = np.random.default_rng((31, len(changes)))
    return make_start(shape(maker=start.book.maker, **changes), rng, MEMORY_BYTES, start.book)


@cocotb.test(skip=Flags.VECTORS not in FEATURES)
async def tables_made_of_vectors(dut: Any) -> None:
    """Both modes, with a codebook and with the one of before, beside tables of the host."""
    bench = await ready(dut)
    shapes = [
        shape(maker=maker_of(STEPS)), shape(maker=maker_of(1), per_query=True, k=KMAX, nprobe=9),
        shape(maker=maker_of(STEPS), masked=True, queries=6, nprobe=2),
    ]  # fmt: skip
    for number, start in enumerate(starts(37, shapes)):
        bench.pause(0.3 * (number % 2))
        await bench.run(start)
        await bench.run(held(start, per_query=number == 0))
        await bench.run(next(starts(41 + number, [shape(per_query=number == 1)])))
        await bench.run(held(start, per_query=True, queries=4))
    assert await bench.read("stall_table") > 0


@cocotb.test(skip=Flags.VECTORS not in FEATURES)
async def a_codebook_of_a_start_that_scans_nothing(dut: Any) -> None:
    bench = await ready(dut)
    nothing = shape(maker=maker_of(STEPS), queries=1, sizes=(0, 0), nprobe=1)
    start = next(starts(43, [nothing]))
    await bench.run(start)
    assert await bench.read("cycles") > maker_of(STEPS).book_beats
    await bench.run(held(start))


@cocotb.test(skip=Flags.VECTORS not in FEATURES)
async def errors_in_vectors_and_codebooks(dut: Any) -> None:
    bench = await ready(dut)
    for name, beats in (("codebook", 200), ("tables", 2)):
        bad, good = (next(starts(47, [shape(maker=maker_of(STEPS))])) for _ in range(2))
        bad.arguments[name] = MEMORY_BYTES - 64 * beats  # fails in the middle
        await bench.begin(bad)
        await bench.end()
        assert await bench.read("error") == Error.AXI_READ, name
        await bench.run(good)


@cocotb.test(skip=Flags.VECTORS not in FEATURES)
async def vectors_that_the_build_cannot_do(dut: Any) -> None:
    bench = await ready(dut)
    both = Flags.VECTORS | Flags.CODEBOOK
    beats = maker_of(STEPS).vector_beats
    for changes in (
        {"steps": 0}, {"steps": STEPS + 1}, {"steps": STEPS + (1 << 20)}, {"steps": 1},
        {"vector_beats": beats - 1}, {"vector_beats": beats + 1}, {"vector_beats": 0},
        {"vector_shift": 5}, {"vector_shift": 32}, {"vector_shift": 0},
        {"flags": both | Flags.BIASES, "mode": 1}, {"flags": Flags.CODEBOOK},
        {"flags": Flags.CODEBOOK | Flags.MASKS},
    ):  # fmt: skip
        bad = next(starts(53, [shape(maker=maker_of(STEPS))]))
        bad.arguments |= {name: int(value) for name, value in changes.items()}
        await bench.begin(bad)
        await bench.end()
        assert await bench.read("error") == Error.BAD_ARGUMENT, changes
        assert await bench.read("queries_done") == 0
    await bench.run(next(starts(53, [shape(maker=maker_of(STEPS))])))


@cocotb.test()
async def a_slow_memory_changes_nothing(dut: Any) -> None:
    bench = await ready(dut)
    shapes = [shape(), shape(per_query=True, k=KMAX), shape(queries=5, nprobe=3)]
    stalls = 0
    for start, share in zip(starts(7, shapes), (0.3, 0.6, 0.8), strict=True):
        bench.pause(share)
        await bench.run(start)
        stalls += await bench.read("stall_memory")
        assert await bench.read("stall_table") > 0
    assert stalls > 0, "the lanes never waited for codes"


@cocotb.test()
async def errors_end_a_start_and_the_next_one_is_sound(dut: Any) -> None:
    bench = await ready(dut)
    good = next(starts(11, [shape()]))
    for name, error in [
        ("lists", Error.AXI_READ), ("tables", Error.AXI_READ), ("ids", Error.AXI_READ),
        ("codes", Error.AXI_READ), ("results", Error.AXI_WRITE),
    ]:  # fmt: skip
        bad = next(starts(11, [shape()]))
        if name == "codes":
            bad.codes[1] = MEMORY_BYTES
        else:
            bad.arguments[name] = MEMORY_BYTES
        await bench.begin(bad)
        await bench.end()
        assert await bench.read("error") == error, name
        assert await bench.read("error_query") == await bench.read("queries_done")
        await bench.run(good)
        assert await bench.read("error") == Error.NONE


@cocotb.test()
async def arguments_that_the_build_cannot_do(dut: Any) -> None:
    bench = await ready(dut)
    good = next(starts(13, [shape()]))
    for name, value in [
        ("num_queries", 0), ("nprobe", 0), ("k", 0), ("k", KMAX + 1), ("m", 0), ("m", M + 1),
        ("code_bytes", 2 * M), ("mode", 2), ("flags", 16), ("flags", 1 << 31),
        ("flags", int(Flags.BIASES)),  # mode A has none
        *(("flags", int(one)) for one in Flags if one not in FEATURES),
    ]:  # fmt: skip
        bad = next(starts(13, [shape()]))
        bad.arguments[name] = value
        await bench.begin(bad)
        await bench.end()
        assert await bench.read("error") == Error.BAD_ARGUMENT, name
        assert await bench.read("queries_done") == 0
    await bench.run(good)


@cocotb.test()
async def a_reset_in_the_middle(dut: Any) -> None:
    bench = await ready(dut)
    start = next(starts(17, [shape()]))
    await bench.begin(start)
    await ClockCycles(dut.ap_clk, 700)
    assert not Ctrl(await bench.read("ctrl")) & Ctrl.IDLE
    await bench.reset()
    await ClockCycles(dut.ap_clk, 50)
    assert await bench.read("ctrl") == Ctrl.IDLE
    await bench.run(start)


@cocotb.test()
async def the_interrupt_tells_the_end(dut: Any) -> None:
    bench = await ready(dut)
    await bench.write("gie", 1)
    await bench.write("ier", 1)
    await bench.begin(next(starts(19, [shape(queries=1, nprobe=1)])))
    assert dut.interrupt.value == 0
    await RisingEdge(dut.interrupt)
    assert await bench.read("isr") == 1
    await bench.write("isr", 1)
    await ClockCycles(dut.ap_clk, 2)
    assert dut.interrupt.value == 0
    await bench.end()
