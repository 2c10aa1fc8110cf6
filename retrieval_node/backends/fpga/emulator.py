"""An emulated card: own memory, registers and asynchronous compute units.

It knows nothing but its registers and its memory, which are laid out as
``fpga/regs.toml`` says. The scan is the compiled ``card_scan``, bit-equal to the
numeric contract; codes are regrouped for it once and kept until memory changes.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from retrieval_node.backends.fpga.device import CardBuild
from retrieval_node.backends.fpga.emulator_memory import EmulatedBuffer, EmulatedMemory
from retrieval_node.backends.fpga.emulator_scan import Outcome, UnitScan
from retrieval_node.backends.fpga.faults import Fault, FaultPlan
from retrieval_node.backends.fpga.model import Build, Pipeline
from retrieval_node.backends.fpga.registers import REGISTERS, VERSION, Ctrl, Flags

#: After a start, for its host to look; then the card's own thread goes on.
_HEAD_START_S = 100e-6
_ALL = Flags.MASKS | Flags.BIASES | Flags.VECTORS | Flags.CODEBOOK
_NAMES = {register.offset: name for name, register in REGISTERS.items()}


@dataclass(frozen=True)
class EmulatorConfig:
    """The emulated card and its bitstream.

    Attributes:
        compute_units: starts that run at once.
        banks, bank_bytes: its memory.
        build: what the bitstream can do; m 0 takes codes of any length.
        version: of its registers.
        clock_hz: for the cycle estimate alone.
        watchful: a start fails that reads what the host wrote and did not sync, and
            results that are not synced back are poison; for tests, since it compares
            and writes whole buffers.
    """

    compute_units: int = 1
    banks: int = 4
    bank_bytes: int = 16 << 30
    build: CardBuild = field(
        default_factory=lambda: CardBuild(0, 4, 16, 24, 1 << 16, _ALL, macs=8, steps=64)
    )
    version: int = VERSION
    clock_hz: float = 300e6
    watchful: bool = False

    def modelled(self, width: int) -> Build:
        """The build that the cycle estimate is for; codes of 8 to 64 bytes."""
        return Build(self.build.channels, min(64, max(8, width)), self.clock_hz, 1.0, Pipeline())


class _Job:
    """A start, done by the card's own thread or by who asks for it before that wakes.

    A host that has nothing else to do and looks at once pays for no change of
    thread; one that makes the next start ready meanwhile has it run beside itself.
    """

    def __init__(self, work: Callable[[], Outcome]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._taken, self._ended = threading.Event(), threading.Event()
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def in_thread(self) -> None:
        """In a thread of the card."""
        if not self._taken.wait(_HEAD_START_S) and self.take():
            self.run()

    def take(self) -> bool:
        """Whether the caller is the one to run it."""
        with self._lock:
            first = not self._taken.is_set()
            self._taken.set()
        return first

    def run(self) -> None:
        """By whoever took it."""
        try:
            self._outcome = self._work()
        except BaseException as error:  # noqa: BLE001  raised where the host looks
            self._error = error
        self._ended.set()

    def wait(self) -> None:
        """Until it has ended, where somebody took it."""
        self._ended.wait()

    def outcome(self) -> Outcome | None:
        """None while it runs."""
        if not self._ended.is_set():
            return None
        if self._error is not None:
            raise self._error
        return self._outcome


@dataclass
class _Unit:
    registers: dict[int, int] = field(default_factory=dict)
    running: _Job | None = None
    hung: bool = False
    done: bool = False


class EmulatedDevice:
    """Implements ``device.Device``."""

    name = "emulator"

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        self.config = config or EmulatorConfig()
        self.compute_units = self.config.compute_units
        self.banks = self.config.banks
        self.memory = EmulatedMemory(self.config.banks, self.config.bank_bytes)
        self.faults = FaultPlan()
        self._lock = threading.Lock()
        self._units: list[_Unit] = []
        self._scan = UnitScan(self.memory, self.config)
        self._threads = concurrent.futures.ThreadPoolExecutor(
            self.config.compute_units, thread_name_prefix="emulated-unit"
        )
        self._power_up()

    def _power_up(self) -> None:
        build = self.config.build
        values = {
            "version": self.config.version, "build_m": build.m, "build_channels": build.channels,
            "build_lw": build.table_bits, "build_sw": build.sum_bits, "build_kmax": build.k_max,
            "build_features": int(build.features), "build_macs": build.macs,
            "build_steps": build.steps,
        }  # fmt: skip
        fixed = {REGISTERS[name].offset: value for name, value in values.items()}
        self._units = [_Unit(dict(fixed)) for _ in range(self.compute_units)]

    def free_bytes(self, bank: int) -> int:
        return self.memory.free_bytes(bank)

    def allocate(self, nbytes: int, bank: int) -> EmulatedBuffer:
        return self.memory.allocate(nbytes, bank)

    def free(self, address: int) -> None:
        self.memory.free(address)

    def write_register(self, unit: int, offset: int, value: int) -> None:
        """An argument, or a start; a start while one runs and writes to status are ignored."""
        state = self._units[unit]
        if offset == REGISTERS["ctrl"].offset:
            with self._lock:
                if value & Ctrl.START and state.running is None and not state.hung:
                    self._start(unit, state)
            return
        name = _NAMES.get(offset) or _NAMES.get(offset - 4)
        if name is None or REGISTERS[name].writable or REGISTERS[name].per_channel:
            state.registers[offset] = value & 0xFFFFFFFF

    def _start(self, unit: int, state: _Unit) -> None:
        state.done = False
        fault = self.faults.next()
        if fault is Fault.HANG:
            state.hung = True
            return
        state.running = _Job(partial(self._scan.run, unit, dict(state.registers), fault))
        self._threads.submit(state.running.in_thread)

    def read_register(self, unit: int, offset: int) -> int:
        state = self._units[unit]
        if offset != REGISTERS["ctrl"].offset:
            return state.registers.get(offset, 0)
        job = state.running
        if job is not None and job.take():
            job.run()
        with self._lock:
            outcome = None if job is None else job.outcome()
            if outcome is not None and state.running is job:
                state.registers.update(outcome.registers)
                state.running = None
                state.done = True
            busy = state.running is not None or state.hung
            value = Ctrl(0) if busy else Ctrl.IDLE
            if state.done:
                value |= Ctrl.DONE | Ctrl.READY
                state.done = False
        return int(value)

    def reset(self) -> None:
        """Programs the card anew; a start under way ends first, its results are lost."""
        for state in self._units:
            if state.running is not None and not state.running.take():
                state.running.wait()
        with self._lock:
            self._power_up()
        self.memory.clear()
        self._scan.forget()

    def close(self) -> None:
        self._threads.shutdown(wait=True)
