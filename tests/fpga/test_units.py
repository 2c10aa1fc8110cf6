"""The decode lane and the top-K unit against the numeric contract, in two simulators."""

from __future__ import annotations

import pytest

from tests.fpga.simulate import simulate

pytestmark = pytest.mark.rtl
#: Modules that Icarus simulates in seconds, with parameters.
UNITS = [
    ("ragrig_fifo", {"W": 12, "DEPTH": 8}),
    ("ragrig_arbiter", {"N": 3}),
    ("ragrig_reader", {"DEPTH": 16, "BURST": 8}),
    ("ragrig_table_loader", {"M": 16, "LW": 16}),
    ("ragrig_table_loader", {"M": 64, "LW": 16}),
    ("ragrig_table_loader", {"M": 8, "LW": 8}),
    ("ragrig_walker", {"P": 4, "SW": 20}),
    ("ragrig_sequencer", {}),
    ("ragrig_control", {"CHANNELS": 3, "BIASES": 1}),
    *(
        ("ragrig_lanes", {"P": 4, "M": m, "LW": 8, "SW": 12, "TW": 20, "BIASES": biases})
        for m, biases in ((8, 0), (8, 1), (4, 1))
    ),
    ("ragrig_ids", {"DEPTH": 16}),
    ("ragrig_writer", {"KMAX": 20, "SW": 24}),
    ("ragrig_scan_control", {"P": 4, "FLUSH": 6}),
    ("ragrig_masks", {"P": 16}),
    ("ragrig_masks", {"P": 64}),
    ("ragrig_masks", {"P": 256}),
    ("ragrig_bias_split", {"CHANNELS": 2, "M": 16}),
    ("ragrig_bias_split", {"CHANNELS": 1, "M": 64}),
    ("ragrig_lane_bias", {"SW": 20}),
    ("ragrig_channel", {"M": 16, "DEPTH": 16, "BURST": 8}),
]


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


@pytest.mark.parametrize(
    ("simulator", "m", "lw", "macs", "steps"),
    [
        ("icarus", 8, 8, 4, 2),
        # CI has this one whole, in test_cosim.py.
        pytest.param("verilator", 16, 16, 8, 4, marks=pytest.mark.slow),
        pytest.param("verilator", 64, 16, 2, 1, marks=pytest.mark.slow),
        pytest.param("verilator", 32, 16, 1, 3, marks=pytest.mark.slow),
    ],
)
def test_tables_are_made_of_vectors(simulator: str, m: int, lw: int, macs: int, steps: int) -> None:
    simulate("ragrig_table_maker", simulator, {"M": m, "LW": lw, "U": macs, "STEPS": steps})


@pytest.mark.parametrize(
    ("module", "parameters"), UNITS, ids=[f"{name}{list(p.values())}" for name, p in UNITS]
)
def test_a_unit(module: str, parameters: dict[str, int]) -> None:
    simulate(module, "icarus", parameters)
