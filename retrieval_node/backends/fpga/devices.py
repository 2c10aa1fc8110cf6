"""Devices by name."""

from __future__ import annotations

from ragschema.errors import InvalidInput
from retrieval_node.backends.fpga.device import Device
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig


def open_device(name: str, compute_units: int) -> Device:
    """A device with as many compute units as scans may run at once.

    Raises:
        InvalidInput: an unknown device.
    """
    if name == "emulator":
        return EmulatedDevice(EmulatorConfig(compute_units=compute_units))
    raise InvalidInput(f"{name!r} is not a device", field="device", hint="use emulator")
