"""The arbiter: every request once, lowest unit first, held while the channel is not ready."""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick

N = PARAMETERS["N"]


@cocotb.test()
async def requests_pass_by_rank(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    dut.in_valid.value = dut.arready.value = 0
    await reset(dut)
    wanted = [deque((rng.getrandbits(64), rng.getrandbits(8)) for _ in range(60)) for _ in range(N)]
    passed: deque[tuple[int, int, int]] = deque()
    for _ in range(2000):
        valid = [bool(line) and rng.random() < 0.5 for line in wanted]
        dut.in_valid.value = pack([int(v) for v in valid], 1)
        heads = [line[0] if line else (0, 0) for line in wanted]
        dut.in_addr.value = pack([head[0] for head in heads], 64)
        dut.in_len.value = pack([head[1] for head in heads], 8)
        ready = rng.random() < 0.5
        dut.arready.value = int(ready)
        await _settled(dut)
        taken = int(dut.in_ready.value)
        if dut.arvalid.value:
            seen.add("passed" if ready else "held")
            unit, address, length = passed[0]
            assert (dut.arid.value, dut.araddr.value, dut.arlen.value) == (unit, address, length)
            if ready:
                passed.popleft()
        assert bin(taken).count("1") <= 1
        if taken:
            unit = taken.bit_length() - 1
            assert valid[unit]
            assert not any(valid[:unit]), "a lower unit waits"
            seen |= {"several"} if sum(valid) > 1 else set()
            passed.append((unit, *wanted[unit].popleft()))
        await tick(dut)
    assert not any(wanted)
    assert dut.quiet.value == 1
    assert seen == {"passed", "held", "several"}


async def _settled(dut: Any) -> None:
    """Lets what hangs on inputs alone follow them."""
    from cocotb.triggers import Timer

    await Timer(100, "ps")
