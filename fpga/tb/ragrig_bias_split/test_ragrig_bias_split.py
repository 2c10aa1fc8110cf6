"""The splitter of biases: every code's own 16 bits, a new beat for every list."""

from __future__ import annotations

from collections import deque
from typing import Any

import cocotb
from clocked import PARAMETERS, pack, reset, seeded, tick
from cocotb.triggers import Timer

CHANNELS, M = PARAMETERS["CHANNELS"], PARAMETERS["M"]
SLOTS = 64 // M
PARTS = 32 // SLOTS


@cocotb.test()
async def biases_follow_their_codes(dut: Any) -> None:
    rng, seen = seeded(), set[str]()
    for name in ("biased", "valid", "data", "issue", "last"):
        getattr(dut, name).value = 0
    await reset(dut)
    for _ in range(30):
        biased, left = rng.random() < 0.7, rng.choice((1, PARTS, PARTS + 1, rng.randrange(1, 90)))
        dut.biased.value = int(biased)
        count = -(-left // PARTS)
        channels = [[rng.getrandbits(512) for _ in range(count)] for _ in range(CHANNELS)]
        beats = deque(pack([own[i] for own in channels], 512) for i in range(count))
        for at in range(left):
            for _ in range(20):
                have = rng.random() < 0.7
                dut.valid.value = int(have)
                dut.data.value = beats[0] if have and beats else 0
                dut.issue.value, dut.last.value = 0, int(at == left - 1)
                await Timer(100, "ps")
                assert dut.pop.value == 0
                if dut.ready.value:
                    break
                seen.add("waited")
                await tick(dut)
            assert dut.ready.value == 1
            dut.issue.value = 1
            await Timer(100, "ps")
            assert dut.pop.value == int(biased and (at == left - 1 or at % PARTS == PARTS - 1))
            if biased:
                part = (1 << 16 * SLOTS) - 1
                own = [c[at // PARTS] >> 16 * SLOTS * (at % PARTS) & part for c in channels]
                assert int(dut.biases.value) == pack(own, 16 * SLOTS)
            if dut.pop.value:
                beats.popleft()
                seen.add("partly used" if at % PARTS != PARTS - 1 else "used up")
            await tick(dut)
        dut.issue.value = 0
        assert not (biased and beats)
        seen.add("biased" if biased else "none")
    assert seen == {"waited", "partly used", "used up", "biased", "none"}
