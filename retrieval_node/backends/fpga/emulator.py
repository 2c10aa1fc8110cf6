"""An emulated card: own memory, registers and asynchronous compute units.

Host and device bytes are kept apart and poisoned, so a forgotten sync shows.
The scan itself is the compiled ``contract_scan``, bit-equal to the numeric contract.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import Unavailable
from ragschema.types import U8
from retrieval_node.backends.fpga.device import (
    CODES_HIGH,
    CODES_LOW,
    CTRL,
    ERROR,
    Ctrl,
    DeviceError,
    read_argument,
)
from retrieval_node.native.loader import require_native

_PAGE = 4096
_POISON_HOST = 0xA5
_POISON_DEVICE = 0x5A


@dataclass(frozen=True)
class EmulatorConfig:
    """Size of the emulated card."""

    compute_units: int = 1
    banks: int = 4
    bank_bytes: int = 16 << 30


class _Fault(Exception):
    """A run that the device refuses; becomes a code in the error register."""

    def __init__(self, code: DeviceError) -> None:
        super().__init__(code.name)
        self.code = code


class EmulatedBuffer:
    """Host and device side of one allocation."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.host: U8 = np.full(nbytes, _POISON_HOST, dtype=np.uint8)
        self.device: U8 = np.full(nbytes, _POISON_DEVICE, dtype=np.uint8)

    def to_device(self, nbytes: int) -> None:
        self.device[:nbytes] = self.host[:nbytes]

    def from_device(self, nbytes: int) -> None:
        self.host[:nbytes] = self.device[:nbytes]


@dataclass
class _Unit:
    registers: dict[int, int] = field(default_factory=dict)
    started: bool = False
    running: concurrent.futures.Future[int] | None = None
    done: bool = False


class EmulatedDevice:
    """Implements ``device.Device``."""

    name = "emulator"

    def __init__(self, config: EmulatorConfig) -> None:
        self._native = require_native()
        self.compute_units = config.compute_units
        self.banks = config.banks
        self._bank_bytes = config.bank_bytes
        # Reentrant: a garbage collection may free a buffer in the middle of a call.
        self._lock = threading.RLock()
        self._used = [0] * config.banks
        self._next = [(bank + 1) << 40 for bank in range(config.banks)]
        self._buffers: dict[int, EmulatedBuffer] = {}
        self._addresses: list[int] = []
        self._units = [_Unit() for _ in range(config.compute_units)]
        self._threads = concurrent.futures.ThreadPoolExecutor(
            config.compute_units, thread_name_prefix="emulated-unit"
        )

    def free_bytes(self, bank: int) -> int:
        return self._bank_bytes - self._used[bank]

    def allocate(self, nbytes: int, bank: int) -> EmulatedBuffer:
        size = max(_PAGE, -(-nbytes // _PAGE) * _PAGE)
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
            buffer = self._buffers.pop(address)
            self._addresses.remove(address)
            self._used[(address >> 40) - 1] -= len(buffer.host)

    def write_register(self, unit: int, offset: int, value: int) -> None:
        state = self._units[unit]
        if offset == CTRL:
            if value & Ctrl.START:
                assert not state.started, "started while it runs"
                # Run by whoever waits, or by a thread of its own once somebody polls:
                # a caller that waits at once pays for no change of thread.
                state.started = True
            return
        state.registers[offset] = value & 0xFFFFFFFF

    def read_register(self, unit: int, offset: int) -> int:
        state = self._units[unit]
        if offset != CTRL:
            return state.registers.get(offset, 0)
        if state.started:
            if state.running is None:
                state.running = self._threads.submit(self._run, state)
            if state.running.done():
                self._finish(state, state.running.result())
        value = 0 if state.started else int(Ctrl.IDLE)
        if state.done:
            value |= int(Ctrl.DONE)
            state.done = False
        return value

    def wait(self, unit: int, timeout_s: float) -> None:
        state = self._units[unit]
        assert state.started, "waited for a unit that was not started"
        if state.running is None:
            self._finish(state, self._run(state))
            return
        try:
            scanned = state.running.result(timeout_s)
        except concurrent.futures.TimeoutError as error:
            raise Unavailable(
                f"compute unit {unit} did not finish within {timeout_s:g} s",
                hint="restart the retrieval node",
            ) from error
        self._finish(state, scanned)

    def _finish(self, state: _Unit, scanned: int) -> None:
        state.registers[CODES_LOW] = scanned & 0xFFFFFFFF
        state.registers[CODES_HIGH] = scanned >> 32
        state.started = False
        state.running = None
        state.done = True

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    def _run(self, state: _Unit) -> int:
        state.registers[ERROR] = DeviceError.NONE
        try:
            return self._scan(state.registers)
        except _Fault as fault:
            state.registers[ERROR] = fault.code
            return 0

    def _scan(self, registers: dict[int, int]) -> int:
        def get(name: str) -> int:
            return read_argument(registers, name)

        def memory(name: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
            return self._resolve(get(name), dtype, shape)

        n, k, m, rows = get("num_queries"), get("k"), get("m"), get("code_rows")
        if not (n and k and m):
            raise _Fault(DeviceError.BAD_ARGUMENT)
        masks, mask_bytes = "masks", get("mask_bytes")
        if not mask_bytes:
            masks, mask_bytes = "alive", get("alive_bytes")
        try:
            scanned: int = self._native.contract_scan(
                memory("jobs", np.int64, get("num_jobs"), 6),
                memory("starts", np.int64, n + 1),
                memory("codes", np.uint8, get("code_bytes")),
                memory("ids", np.uint32, rows),
                get("row_start"),
                memory(masks, np.uint8, mask_bytes) if mask_bytes else np.zeros(0, np.uint8),
                memory("tables", np.uint16, get("num_tables"), m * 256),
                m,
                get("sum_max"),
                memory("sums", np.int64, n, k),
                memory("rows", np.int64, n, k),
                memory("counts", np.int32, n),
            )
        except ValueError as error:
            # A job outside its arrays, for one.
            raise _Fault(DeviceError.BAD_ARGUMENT) from error
        return scanned

    def _resolve(
        self, address: int, dtype: type[np.generic], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """The device bytes behind an address; a fault when nothing of that size is there."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with self._lock:
            at = bisect.bisect_right(self._addresses, address) - 1
            buffer = self._buffers[self._addresses[at]] if at >= 0 else None
        if buffer is None or address - buffer.address + nbytes > len(buffer.device):
            raise _Fault(DeviceError.BAD_ADDRESS)
        start = address - buffer.address
        return buffer.device[start : start + nbytes].view(dtype).reshape(shape)
