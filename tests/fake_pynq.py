"""PYNQ over an emulated card, so that its calls are exercised without a board.

``fake_pynq`` is a stand-in for the parts that ragrig calls, with the same names and
the same order of arguments. Where PYNQ is installed, ``tests.pynq_card`` puts a
subclass of its own Device under its own Overlay, MMIO and buffers.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from retrieval_node.backends.fpga.emulator import EmulatedDevice
from retrieval_node.backends.fpga.registers import ADDRESS_BITS, KERNEL

SPAN = 1 << ADDRESS_BITS


def memories(behind: EmulatedDevice) -> dict[str, dict[str, Any]]:
    """A mem_dict as an .xclbin's: the card's banks, one that is not used, a stream."""
    found = {
        f"DDR[{bank}]": {
            "tag": f"DDR[{bank}]", "idx": bank, "used": 1, "streaming": False,
            "size": behind.config.bank_bytes, "base_address": bank << 34, "type": "DDRMEMORY",
        }
        for bank in range(behind.banks)
    }  # fmt: skip
    extra = {"used": 0, "streaming": False, "size": 1 << 17, "base_address": 0, "type": "PLRAM"}
    found["PLRAM[0]"] = extra | {"tag": "PLRAM[0]", "idx": behind.banks}
    found["dc_0"] = extra | {"tag": "dc_0", "idx": behind.banks + 1, "used": 1, "streaming": True}
    return found


class Bus:
    """Register accesses as PYNQ's devices see them: an address and bytes."""

    def __init__(self, behind: EmulatedDevice) -> None:
        self.behind = behind

    def read(self, address: int, length: int) -> bytes:
        assert length == 4
        value = self.behind.read_register(address // SPAN, address % SPAN)
        return value.to_bytes(4, "little")

    def write(self, address: int, data: bytes) -> None:
        value = int.from_bytes(data, "little")
        self.behind.write_register(address // SPAN, address % SPAN, value)

    def sync(self, address: int, offset: int, size: int, to_device: bool) -> None:
        buffer, start = self.behind.memory.find(address)
        assert (start, offset) == (0, 0), "the driver syncs from a buffer's start"
        (buffer.to_device if to_device else buffer.from_device)(size)


class _Buffer(np.ndarray[Any, Any]):
    """As pynq.buffer.PynqBuffer: a slice syncs its own bytes."""

    bus: Any = None
    device_address: int = 0
    start: int = 0

    def __array_finalize__(self, whole: Any) -> None:
        if isinstance(whole, _Buffer) and whole.bus is not None:
            self.start = whole.start + self.ctypes.data - whole.ctypes.data
            self.bus, self.device_address = whole.bus, whole.device_address

    def sync_to_device(self) -> None:
        self.bus.sync(self.device_address, self.start, self.nbytes, True)

    def sync_from_device(self) -> None:
        self.bus.sync(self.device_address, self.start, self.nbytes, False)

    def freebuffer(self) -> None:
        self.bus.behind.memory.free(self.device_address)


def fake_pynq(behind: EmulatedDevice) -> Any:
    """What ragrig uses of the module ``pynq``."""
    bus, memory_of = Bus(behind), memories(behind)

    class Kernel:
        def __init__(self, unit: int) -> None:
            self._base = unit * SPAN

        def read(self, offset: int = 0) -> int:
            return int.from_bytes(bus.read(self._base + offset, 4), "little")

        def write(self, offset: int, value: int) -> None:
            bus.write(self._base + offset, value.to_bytes(4, "little"))

    class Overlay:
        def __init__(self, bitfile_name: str, *, device: Any = None) -> None:
            if bitfile_name == "missing.xclbin":
                raise OSError(f"Bitstream file {bitfile_name} does not exist.")
            kernel = KERNEL if bitfile_name == "card.xclbin" else "another"
            units = range(behind.compute_units)
            self.ip_dict: dict[str, Any] = {f"{kernel}_{unit + 1}": {} for unit in units}
            self.mem_dict = memory_of
            for unit in units:
                setattr(self, f"{kernel}_{unit + 1}", Kernel(unit))
            for tag, desc in memory_of.items():
                setattr(self, re.sub("[^A-Za-z0-9_]", "", tag), desc)

        def download(self) -> None:
            assert behind.memory.buffers() == [], "PYNQ refuses while buffers are allocated"
            behind.reset()

    def allocate(shape: tuple[int, ...], dtype: str = "u4", target: Any = None) -> _Buffer:
        buffer = behind.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize, target["idx"])
        made = buffer.host.view(dtype).reshape(shape).view(_Buffer)
        made.bus, made.device_address = bus, buffer.address
        return made

    return SimpleNamespace(Overlay=Overlay, allocate=allocate)


def bitstream(folder: Path) -> str:
    """A file that stands for one: PYNQ looks whether it is there."""
    path = folder / "card.xclbin"
    path.write_bytes(b"not a bitstream")
    return str(path)
