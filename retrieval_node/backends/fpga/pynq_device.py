"""A real card through PYNQ 3.0.1: Overlay, allocate, registers. Not run on a board yet.

PYNQ needs numpy below 2 (extra ``[fpga]``): with numpy 2 it imports, and its
buffers cannot be made. The bitstream's ``m_axi_host`` port must reach every bank.
"""

from __future__ import annotations

import importlib
import re
import threading
from typing import Any

import numpy as np

from ragschema.errors import DeviceFault, InvalidInput, Unavailable
from ragschema.types import U8
from retrieval_node.backends.fpga.device import PAGE_BYTES
from retrieval_node.backends.fpga.registers import KERNEL

_NOT_A_NAME = re.compile("[^A-Za-z0-9_]")


class PynqBuffer:
    """A PYNQ buffer of bytes; its two sides are PYNQ's."""

    def __init__(self, made: Any, bank: int) -> None:
        self.made = made
        self.bank = bank
        self.address = int(made.device_address)
        self.host: U8 = made.view(np.ndarray)

    def to_device(self, nbytes: int) -> None:
        self.made[:nbytes].sync_to_device()

    def from_device(self, nbytes: int) -> None:
        self.made[:nbytes].sync_from_device()


class PynqDevice:
    """Implements ``device.Device``.

    Args:
        bitstream: an .xclbin file.
        pynq: the module; None imports it.
        target: a ``pynq.Device``; None: PYNQ's active one.

    Raises:
        Unavailable: PYNQ is not installed, or sees no card or no file.
        InvalidInput: the bitstream holds no kernel of ragrig's.
    """

    name = "pynq"

    def __init__(self, bitstream: str, pynq: Any = None, target: Any = None) -> None:
        self._pynq = _import_pynq() if pynq is None else pynq
        try:
            self._overlay = self._pynq.Overlay(bitstream, device=target)
        except (OSError, RuntimeError) as error:
            raise Unavailable(
                f"PYNQ cannot load {bitstream}: {error}",
                hint="source XRT's setup.sh, and look for the card with `xbutil examine`",
            ) from error
        self._lock = threading.RLock()
        self._buffers: dict[int, PynqBuffer] = {}
        self._find_units(bitstream)
        found = [d for d in self._overlay.mem_dict.values() if d.get("used") and not d["streaming"]]
        self._memories = sorted(found, key=lambda desc: int(desc["idx"]))
        self._left = [int(desc["size"]) for desc in self._memories]

    def _find_units(self, bitstream: str) -> None:
        names = sorted(name for name in self._overlay.ip_dict if name.startswith(KERNEL))
        if not names:
            raise InvalidInput(
                f"{bitstream} holds no kernel {KERNEL}, but {sorted(self._overlay.ip_dict)}",
                field="device",
                hint="link the kernel of fpga/syn into it",
            )
        self._units = [getattr(self._overlay, name) for name in names]

    @property
    def compute_units(self) -> int:
        return len(self._units)

    @property
    def banks(self) -> int:
        return len(self._memories)

    def free_bytes(self, bank: int) -> int:
        return self._left[bank]

    def allocate(self, nbytes: int, bank: int) -> PynqBuffer:
        size = max(1, -(-nbytes // PAGE_BYTES)) * PAGE_BYTES
        memory = getattr(self._overlay, _NOT_A_NAME.sub("", str(self._memories[bank]["tag"])))
        with self._lock:
            if size > self._left[bank]:
                raise Unavailable(
                    f"bank {bank} of the device has {self._left[bank]} bytes left,"
                    f" {size} are needed",
                    hint="spread the collection over more retrieval nodes",
                )
            try:
                made = self._pynq.allocate((size,), dtype="u1", target=memory)
            except (OSError, RuntimeError, MemoryError) as error:
                raise Unavailable(
                    f"bank {bank} of the device gives no {size} bytes: {error}"
                ) from error
            buffer = PynqBuffer(made, bank)
            self._left[bank] -= size
            self._buffers[buffer.address] = buffer
        return buffer

    def free(self, address: int) -> None:
        with self._lock:
            buffer = self._buffers.pop(address, None)
            if buffer is not None:
                self._left[buffer.bank] += len(buffer.host)
                buffer.made.freebuffer()

    def write_register(self, unit: int, offset: int, value: int) -> None:
        self._units[unit].write(offset, value)

    def read_register(self, unit: int, offset: int) -> int:
        return int(self._units[unit].read(offset))

    def reset(self) -> None:
        """Frees every buffer and downloads the bitstream again.

        Raises:
            DeviceFault: the card does not take it.
        """
        with self._lock:
            for address in list(self._buffers):
                self.free(address)
            try:
                self._overlay.download()
            except (OSError, RuntimeError) as error:
                raise DeviceFault(
                    f"device {self.name} does not take its bitstream again: {error}",
                    hint="reset the card with `xbutil reset`",
                ) from error

    def close(self) -> None:
        with self._lock:
            for address in list(self._buffers):
                self.free(address)


def _import_pynq() -> Any:
    try:
        return importlib.import_module("pynq")
    except ImportError as error:
        raise Unavailable(
            "PYNQ is not installed", hint="pip install 'ragrig[fpga]' on the card's host"
        ) from error
