"""A device of PYNQ's own class over an emulated card; importable where PYNQ is installed."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from retrieval_node.backends.fpga.emulator import EmulatedDevice
from retrieval_node.backends.fpga.registers import KERNEL
from tests.fake_pynq import SPAN, Bus, memories

_PynqBuffer: Any = importlib.import_module("pynq.buffer").PynqBuffer
_PynqDevice: Any = importlib.import_module("pynq.pl_server.device").Device


class _Buffer(_PynqBuffer):  # type: ignore[misc]
    """Its memory is numpy's and not mapped: only the freeing differs."""

    def freebuffer(self) -> None:
        self.device.bus.behind.memory.free(self.device_address)

    def __del__(self) -> None:
        """Freed by its owner alone."""


class _Memory:
    """As pynq.pl_server.xrt_device.XrtMemory."""

    def __init__(self, device: CardDevice, bank: int) -> None:
        self._device, self._bank = device, bank

    def allocate(self, shape: tuple[int, ...], dtype: str, **_: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = self._device.bus.behind.allocate(size, self._bank)
        return _Buffer(
            shape, dtype, bo=buffer.address, device=self._device, buffer=buffer.host,
            device_address=buffer.address, coherent=False,
        )  # fmt: skip


class CardDevice(_PynqDevice):  # type: ignore[misc]
    """Registers by address, buffers by bank, downloads that find no buffer left."""

    def __init__(self, behind: EmulatedDevice) -> None:
        super().__init__("emulated")
        self.name, self.timestamp, self.bus = "emulated", "", Bus(behind)
        self.capabilities = {"REGISTER_RW": True}

    def get_bitfile_metadata(self, bitfile_name: str) -> Any:
        behind = self.bus.behind
        kernels = {
            f"{KERNEL}_{unit + 1}": {
                "phys_addr": unit * SPAN, "addr_range": SPAN, "type": f"ragrig:{KERNEL}:1.0",
                "fullpath": f"{KERNEL}_{unit + 1}",
            }
            for unit in range(behind.compute_units)
        }  # fmt: skip
        return SimpleNamespace(
            ip_dict=kernels, mem_dict=memories(behind), gpio_dict={}, interrupt_controllers={},
            interrupt_pins={}, hierarchy_dict={}, clock_dict={}, systemgraph=None,
        )  # fmt: skip

    def download(self, bitstream: Any, parser: Any = None) -> None:
        assert self.bus.behind.memory.buffers() == [], "the card is busy"
        self.bus.behind.reset()

    def get_memory(self, desc: dict[str, Any]) -> _Memory:
        return _Memory(self, desc["idx"])

    def read_registers(self, address: int, length: int) -> bytes:
        return self.bus.read(address, length)

    def write_registers(self, address: int, data: bytes) -> None:
        self.bus.write(address, bytes(data))

    def flush(self, bo: int, offset: int, ptr: int, size: int) -> None:
        self.bus.sync(bo, offset, size, True)

    def invalidate(self, bo: int, offset: int, ptr: int, size: int) -> None:
        self.bus.sync(bo, offset, size, False)
