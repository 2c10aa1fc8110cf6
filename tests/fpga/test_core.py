"""The whole accelerator, over its buses, against the numeric contract."""

from __future__ import annotations

import pytest

from tests.fpga.simulate import TB, need, simulate

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("m", "lw", "sw", "features"),
    [
        (16, 16, 24, 15),
        pytest.param(64, 8, 14, 0, marks=pytest.mark.slow),
        pytest.param(8, 8, 18, 15, marks=pytest.mark.slow),
    ],
)
def test_random_starts_are_bit_exact(m: int, lw: int, sw: int, features: int) -> None:
    need("verilator")
    pytest.importorskip("cocotbext.axi", reason="pip install cocotbext-axi==0.1.28")
    simulate(
        "ragrig_core_tb", "verilator",
        {"M": m, "LW": lw, "SW": sw, "KMAX": 16, "FEATURES": features,
         "MACS": 4, "STEPS": 2},
        extra=(TB / "ragrig_core" / "ragrig_core_tb.sv",), folder="ragrig_core",
    )  # fmt: skip
