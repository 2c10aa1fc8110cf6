"""Devices by name."""

from __future__ import annotations

from dataclasses import replace

from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig


def open_device(name: str, compute_units: int, table_bits: int = 16) -> Device:
    """A device with as many compute units as scans may run at once.

    Args:
        table_bits: LW of the emulated build; a real one has its own.

    Raises:
        InvalidInput: an unknown device.
    """
    if name == "emulator":
        config = EmulatorConfig(compute_units=compute_units)
        build = replace(config.build, table_bits=table_bits)
        return EmulatedDevice(replace(config, build=build))
    raise InvalidInput(f"{name!r} is not a device", field="device", hint="use emulator")
