"""The compiled RTL as a device: what it needs, and what it shares with the emulated card."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from ragschema.errors import InvalidInput, Unavailable
from retrieval_node.backends.fpga import verilator_build
from retrieval_node.backends.fpga.device import read_build, read_value, write_argument
from retrieval_node.backends.fpga.devices import open_device
from retrieval_node.backends.fpga.registers import REGISTERS, Ctrl, Error
from retrieval_node.backends.fpga.verilator_build import RtlBuild, compile_model, sources
from retrieval_node.backends.fpga.verilator_device import VerilatorConfig, VerilatorDevice

#: As the driver's tests have it.
SMALL = RtlBuild(channels=4, m=8, k_max=16)
CTRL = REGISTERS["ctrl"].offset


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"channels": 3}, "channels"), ({"m": 0}, "m"), ({"m": 256}, "m"), ({"macs": 6}, "macs"),
        ({"macs": 1}, "macs"), ({"steps": 0}, "steps"),
    ],
)  # fmt: skip
def test_builds_that_cannot_be(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RtlBuild(**change)
    assert caught.value.field == field


def test_without_verilator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Unavailable, match="verilator is not installed") as caught:
        compile_model(RtlBuild(k_max=3))
    assert caught.value.hint == "sudo apt-get install verilator"


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(verilator_build, "_HARNESS", tmp_path / "none.cpp")
    with pytest.raises(Unavailable, match="RTL is not here"):
        open_device("verilator", 1)


def test_the_package_is_compiled_first() -> None:
    names = [path.name for path in sources()]
    assert names[0] == "ragrig_regs_pkg.sv"
    assert len(set(names)) == len(names)
    assert "ragrig_scan.sv" not in names


@pytest.fixture
def device() -> VerilatorDevice:
    if shutil.which("verilator") is None:
        pytest.skip("verilator is not installed: apt-get install verilator")
    return VerilatorDevice(VerilatorConfig(SMALL, banks=2, bank_bytes=8192))


@pytest.mark.rtl
def test_its_registers_tell_the_build(device: VerilatorDevice) -> None:
    build = read_build(device)
    assert (build.m, build.channels, build.k_max) == (8, 4, 16)
    assert (build.table_bits, build.sum_bits, int(build.features)) == (16, 24, 15)
    assert (build.macs, build.steps) == (8, 4)
    device.close()


@pytest.mark.rtl
def test_a_start_without_memory_ends_with_an_error(device: VerilatorDevice) -> None:
    for name, value in {"num_queries": 1, "nprobe": 1, "k": 1, "m": 8, "code_bytes": 8}.items():
        write_argument(device, 0, name, value)
    device.write_register(0, CTRL, int(Ctrl.START))
    while not device.read_register(0, CTRL) & Ctrl.DONE:
        pass
    assert read_value(device, 0, "error") == Error.AXI_READ
    device.close()


@pytest.mark.rtl
def test_a_full_bank_is_unavailable_and_a_reset_empties_it(device: VerilatorDevice) -> None:
    first = device.allocate(8000, 1)
    assert first.address % 4096 == 0
    with pytest.raises(Unavailable, match="bank 1"):
        device.allocate(1, 1)
    device.reset()
    assert device.free_bytes(1) == 8192
    device.free(first.address)  # lost already: no error
    device.close()
