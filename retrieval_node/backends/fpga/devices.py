"""Devices by name."""

from __future__ import annotations

from dataclasses import replace

from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig

_PYNQ = "pynq:"


def open_device(name: str, compute_units: int, table_bits: int = 16) -> Device:
    """A device.

    Args:
        name: ``emulator``; ``verilator`` for the RTL itself, compiled and slow; or
            ``pynq:FILE`` with the bitstream for a real card.
        compute_units: of the emulated card, as many as scans may run at once; a
            real one has those of its bitstream.
        table_bits: LW of the emulated or compiled build; a real one has its own.

    Raises:
        InvalidInput: an unknown device.
        Unavailable: PYNQ or Verilator is not installed, or the card does not open.
    """
    if name == "emulator":
        config = EmulatorConfig(compute_units=compute_units)
        build = replace(config.build, table_bits=table_bits)
        return EmulatedDevice(replace(config, build=build))
    if name == "verilator":
        from retrieval_node.backends.fpga.verilator_build import RtlBuild
        from retrieval_node.backends.fpga.verilator_device import VerilatorConfig, VerilatorDevice

        return VerilatorDevice(VerilatorConfig(RtlBuild(table_bits=table_bits)))
    if name.startswith(_PYNQ) and name != _PYNQ:
        from retrieval_node.backends.fpga.pynq_device import PynqDevice

        return PynqDevice(name.removeprefix(_PYNQ))
    raise InvalidInput(
        f"{name!r} is not a device",
        field="device",
        hint="use emulator, verilator, or pynq:FILE.xclbin",
    )
