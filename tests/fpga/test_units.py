"""The decode lane and the top-K unit against the numeric contract, in two simulators."""

from __future__ import annotations

import pytest

from tests.fpga.simulate import simulate

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("simulator", "m", "lw", "sw"),
    [("icarus", 8, 16, 24), ("icarus", 4, 8, 24), ("icarus", 8, 16, 18), ("verilator", 16, 16, 24)],
)
def test_a_lane_sums_its_table_entries(simulator: str, m: int, lw: int, sw: int) -> None:
    simulate("ragrig_lane", simulator, {"M": m, "LW": lw, "SW": sw})


@pytest.mark.parametrize(
    ("simulator", "p", "kmax"), [("icarus", 4, 5), ("icarus", 1, 1), ("verilator", 16, 100)]
)
def test_topk_is_exact(simulator: str, p: int, kmax: int) -> None:
    simulate("ragrig_topk", simulator, {"P": p, "KMAX": kmax})
