"""What only the PYNQ device does; test_driver.py runs the driver on it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from ragschema.errors import DeviceFault, InvalidInput, Unavailable
from retrieval_node.backends.fpga.devices import open_device
from retrieval_node.backends.fpga.emulator import EmulatedDevice, EmulatorConfig
from retrieval_node.backends.fpga.pynq_device import PynqDevice
from tests.fake_pynq import fake_pynq


@pytest.fixture
def behind() -> EmulatedDevice:
    return EmulatedDevice(EmulatorConfig(compute_units=2, banks=3, bank_bytes=1 << 16))


def test_units_and_banks_are_those_of_the_bitstream(behind: EmulatedDevice) -> None:
    """Memory that is not used, and streams, are no banks."""
    device = PynqDevice("card.xclbin", fake_pynq(behind))
    assert (device.compute_units, device.banks) == (2, 3)
    assert device.free_bytes(2) == 1 << 16
    device.write_register(1, 0x10, 7)
    assert behind.read_register(1, 0x10) == 7
    assert device.read_register(0, 0x10) == 0


def test_buffers_are_counted_synced_by_the_byte_and_freed(behind: EmulatedDevice) -> None:
    device = PynqDevice("card.xclbin", fake_pynq(behind))
    buffer = device.allocate(5000, 1)
    assert len(buffer.host) == 8192
    assert device.free_bytes(1) == (1 << 16) - 8192
    buffer.host[:4] = (1, 2, 3, 4)
    buffer.to_device(2)
    under, _ = behind.memory.find(buffer.address)
    assert under.device[:2].tolist() == [1, 2]
    assert under.device[2:4].tolist() != [3, 4]
    under.device[0] = 9
    buffer.from_device(1)
    assert buffer.host[:2].tolist() == [9, 2]
    device.free(buffer.address)
    device.free(buffer.address)
    assert device.free_bytes(1) == 1 << 16
    assert behind.memory.buffers() == []


def test_a_full_bank_is_refused_by_us_or_by_pynq(
    behind: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fake_pynq(behind)
    device = PynqDevice("card.xclbin", module)
    with pytest.raises(Unavailable, match="bank 0 of the device has 65536 bytes left"):
        device.allocate(1 << 17, 0)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Allocate failed: -12")

    monkeypatch.setattr(module, "allocate", refuse)
    with pytest.raises(Unavailable, match="-12"):
        device.allocate(1, 0)
    assert device.free_bytes(0) == 1 << 16


def test_a_reset_downloads_again_once_nothing_is_allocated(
    behind: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = PynqDevice("card.xclbin", fake_pynq(behind))
    device.allocate(100, 0)
    device.reset()
    assert device.free_bytes(0) == 1 << 16

    def refuse() -> None:
        raise RuntimeError("Bitstream in use by another program")

    monkeypatch.setattr(device._overlay, "download", refuse)
    with pytest.raises(DeviceFault, match="in use by another"):
        device.reset()


def test_what_cannot_be_opened_says_what_to_do(
    behind: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=r"missing\.xclbin does not exist"):
        PynqDevice("missing.xclbin", fake_pynq(behind))
    with pytest.raises(InvalidInput, match="holds no kernel ragrig_scan"):
        PynqDevice("other.xclbin", fake_pynq(behind))

    def absent(name: str, *_: Any) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Unavailable) as caught:
        open_device("pynq:card.xclbin", 1)
    assert "ragrig[fpga]" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["pynq", "pynq:", "xrt"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_device(name, 1)
    assert caught.value.field == "device"
