"""The accelerator's RTL, compiled by Verilator, as a device: exact to the cycle, and slow.

Time passes while the host looks whether a start is done. For small data: about a
million codes take a minute.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from ragschema.errors import DeviceFault
from retrieval_node.backends.fpga.emulator_memory import EmulatedBuffer, EmulatedMemory
from retrieval_node.backends.fpga.emulator_scan import spoil
from retrieval_node.backends.fpga.faults import Fault, FaultPlan
from retrieval_node.backends.fpga.records import result_bytes
from retrieval_node.backends.fpga.registers import REGISTERS, Ctrl
from retrieval_node.backends.fpga.verilator_build import MemoryTiming, RtlBuild, RtlModel

_CTRL: Final = REGISTERS["ctrl"].offset
#: Between two looks of the host.
_CYCLES_PER_LOOK: Final = 8192
_FAULTS: Final = {Fault.HANG: 1, Fault.AXI_READ: 2, Fault.AXI_WRITE: 3}


@dataclass(frozen=True)
class VerilatorConfig:
    """The build, and the memory around it.

    Attributes:
        banks, bank_bytes: of the memory.
        timing: of its answers.
    """

    build: RtlBuild = field(default_factory=RtlBuild)
    banks: int = 4
    bank_bytes: int = 1 << 30
    timing: MemoryTiming = field(default_factory=MemoryTiming)


class VerilatorDevice:
    """Implements ``device.Device``, with one compute unit.

    Raises:
        Unavailable: as ``compile_model``.
    """

    name = "verilator"
    compute_units = 1

    def __init__(self, config: VerilatorConfig | None = None) -> None:
        self.config = config or VerilatorConfig()
        self.banks = self.config.banks
        self.memory = EmulatedMemory(self.banks, self.config.bank_bytes)
        self.faults = FaultPlan()
        # Reentrant: a garbage collection may free a buffer in the middle of a call.
        self._lock = threading.RLock()
        self._model = RtlModel(self.config.build, self.config.timing)
        self._fault: Fault | None = None

    def free_bytes(self, bank: int) -> int:
        return self.memory.free_bytes(bank)

    def allocate(self, nbytes: int, bank: int) -> EmulatedBuffer:
        buffer = self.memory.allocate(nbytes, bank)
        with self._lock:
            self._model.map(buffer.address, buffer.device)
        return buffer

    def free(self, address: int) -> None:
        self.memory.free(address)
        with self._lock:
            self._model.unmap(address)

    def write_register(self, unit: int, offset: int, value: int) -> None:
        with self._lock:
            if offset == _CTRL and value & Ctrl.START:
                self._fault = self.faults.next()
                self._model.fault(_FAULTS.get(self._fault, 0) if self._fault else 0)
            self._model.write(offset, value)

    def read_register(self, unit: int, offset: int) -> int:
        """A register; looking at ``ctrl`` lets the start go on.

        Raises:
            DeviceFault: a check inside the RTL failed.
        """
        with self._lock:
            if offset == _CTRL:
                self._model.run(_CYCLES_PER_LOOK)
            value = self._model.read(offset)
            if self._model.failed:
                raise DeviceFault(f"device {self.name}: a check inside the RTL failed")
            if offset == _CTRL and value & Ctrl.DONE:
                self._spoil()
        return value

    def _spoil(self) -> None:
        """Turns bits of the results where a test asked for it."""
        if self._fault in (Fault.HEAD, Fault.ORDER):
            at = REGISTERS["results"].offset
            address = self._model.read(at) | self._model.read(at + 4) << 32
            buffer, start = self.memory.find(address)
            size = result_bytes(self._model.read(REGISTERS["k"].offset))
            spoil(self._fault, buffer.device[start : start + size])

    def reset(self) -> None:
        """Resets the core; every buffer is lost."""
        with self._lock:
            for buffer in self.memory.buffers():
                self._model.unmap(buffer.address)
            self.memory.clear()
            self._fault = None
            self._model.reset()

    def close(self) -> None:
        with self._lock:
            self._model.close()
