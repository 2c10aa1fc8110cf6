"""Memory of the emulated card: banks, addresses, and bytes that are not synced by themselves."""

from __future__ import annotations

import bisect
import math
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import Unavailable
from ragschema.types import U8
from retrieval_node.backends.fpga.device import PAGE_BYTES

_POISON_HOST: Final = 0xA5
_POISON_DEVICE: Final = 0x5A
_BANK_SHIFT: Final = 40


class NoSuchMemory(Exception):
    """An address that leads nowhere, or to bytes that the host never synced."""


class EmulatedBuffer:
    """Host and device side of one allocation, poisoned differently.

    Attributes:
        written: leading bytes of the device side that somebody wrote.
        version: counts what changed the device side, for whoever keeps a copy.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.host: U8 = np.full(nbytes, _POISON_HOST, dtype=np.uint8)
        self.device: U8 = np.full(nbytes, _POISON_DEVICE, dtype=np.uint8)
        self.written = 0
        self.version = 0

    def to_device(self, nbytes: int) -> None:
        self.device[:nbytes] = self.host[:nbytes]
        self.written = max(self.written, nbytes)
        self.version += 1

    def from_device(self, nbytes: int) -> None:
        self.host[:nbytes] = self.device[:nbytes]

    @property
    def stale(self) -> bool:
        """Whether the host wrote what it did not sync."""
        return not np.array_equal(self.host[: self.written], self.device[: self.written])

    def poison_host(self) -> None:
        """What the host sees of it until it syncs."""
        self.host[:] = _POISON_HOST

    def flip(self, byte: int, bit: int) -> None:
        """Turns one bit of the device side."""
        self.device[byte] ^= np.uint8(1 << bit)
        self.version += 1


class EmulatedMemory:
    """Banks of equal size. Addresses are never given out twice."""

    def __init__(self, banks: int, bank_bytes: int) -> None:
        self.banks = banks
        self._bank_bytes = bank_bytes
        # Reentrant: a garbage collection may free a buffer in the middle of a call.
        self._lock = threading.RLock()
        self._used = [0] * banks
        self._next = [(bank + 1) << _BANK_SHIFT for bank in range(banks)]
        self._buffers: dict[int, EmulatedBuffer] = {}
        self._addresses: list[int] = []

    def free_bytes(self, bank: int) -> int:
        return self._bank_bytes - self._used[bank]

    def allocate(self, nbytes: int, bank: int) -> EmulatedBuffer:
        size = max(PAGE_BYTES, -(-nbytes // PAGE_BYTES) * PAGE_BYTES)
        with self._lock:
            if self._used[bank] + size > self._bank_bytes:
                raise Unavailable(
                    f"bank {bank} of the device has {self.free_bytes(bank)} bytes left,"
                    f" {size} are needed",
                    hint="spread the collection over more retrieval nodes",
                )
            address = self._next[bank]
            self._next[bank] += size
            self._used[bank] += size
            buffer = EmulatedBuffer(address, size)
            self._buffers[address] = buffer
            bisect.insort(self._addresses, address)
        return buffer

    def free(self, address: int) -> None:
        with self._lock:
            buffer = self._buffers.pop(address, None)
            if buffer is None:
                return
            self._addresses.remove(address)
            self._used[(address >> _BANK_SHIFT) - 1] -= len(buffer.host)

    def clear(self) -> None:
        """Loses every buffer."""
        with self._lock:
            self._buffers.clear()
            self._addresses.clear()
            self._used = [0] * self.banks

    def buffers(self) -> list[EmulatedBuffer]:
        with self._lock:
            return [self._buffers[address] for address in self._addresses]

    def find(self, address: int) -> tuple[EmulatedBuffer, int]:
        """The buffer that an address lies in, and the offset in it.

        Raises:
            NoSuchMemory: there is none.
        """
        with self._lock:
            at = bisect.bisect_right(self._addresses, address) - 1
            buffer = self._buffers[self._addresses[at]] if at >= 0 else None
        if buffer is None or address - buffer.address >= len(buffer.device):
            raise NoSuchMemory(f"address {address:#x}")
        return buffer, address - buffer.address

    def read(
        self, address: int, dtype: type[np.generic], shape: tuple[int, ...], strict: bool
    ) -> NDArray[Any]:
        """The device bytes behind an address.

        Args:
            strict: bytes that were never synced are no memory.

        Raises:
            NoSuchMemory: nothing of that size is there.
        """
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        buffer, start = self.find(address)
        if start + nbytes > (buffer.written if strict else len(buffer.device)):
            raise NoSuchMemory(f"{nbytes} bytes from address {address:#x}")
        return buffer.device[start : start + nbytes].view(dtype).reshape(shape)
