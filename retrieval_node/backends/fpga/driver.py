"""The driver of one card: version check, memory, starts, polling, faults."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragschema.errors import DeviceFault, InternalError, InvalidInput
from retrieval_node.backends.fpga.counters import CardCounters
from retrieval_node.backends.fpga.device import (
    Buffer,
    Device,
    read_build,
    read_value,
    write_argument,
)
from retrieval_node.backends.fpga.registers import REGISTERS, Ctrl, Error

_CTRL = REGISTERS["ctrl"].offset
_READ_AFTER = ("cycles", "bytes_read", "stall_memory", "stall_table", "stall_topk", "stall_result")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 20e-6, 1e-3
#: Share of the likely time after which a start is looked at.
_FIRST_LOOK = 0.9


@dataclass(frozen=True)
class Started:
    """A start under way.

    Attributes:
        since_s, until_s: on time.monotonic()'s clock; later than until it is a fault.
        codes: that it scans.
    """

    since_s: float
    until_s: float
    codes: int


@dataclass(frozen=True)
class DriverConfig:
    """How the driver treats its card.

    Attributes:
        timeout_s: a start that takes longer is a fault.
        tie_slack: results asked for beyond k, to settle ties by row id.
    """

    timeout_s: float = 30.0
    tie_slack: int = 4

    def __post_init__(self) -> None:
        if not self.timeout_s > 0.0:
            raise InvalidInput(f"{self.timeout_s} is not above 0", field="timeout_s")
        if self.tie_slack < 1:
            raise InvalidInput(f"{self.tie_slack} is less than 1", field="tie_slack")


class CardDriver:
    """One card and what it can do.

    Attributes:
        generation: grows with every reset; memory of an older one is lost.
        broken: a fault was seen, and no reset since.

    Raises:
        VersionMismatch: the bitstream has other registers.
    """

    def __init__(self, device: Device, config: DriverConfig | None = None) -> None:
        self.device = device
        self.config = config or DriverConfig()
        self.build = read_build(device)
        self.counters = CardCounters()
        self.generation = 0
        self.broken = False
        self._written: dict[tuple[int, str, int], int] = {}
        #: Of starts before, for when to look first; a race of two units is harmless.
        self._s_per_code = 0.0

    def allocate(self, nbytes: int) -> Buffer:
        """A buffer in the bank with most room; Unavailable when there is none."""
        bank = max(range(self.device.banks), key=self.device.free_bytes)
        return self.device.allocate(nbytes, bank)

    def send(self, buffer: Buffer, nbytes: int) -> None:
        buffer.to_device(nbytes)
        self.counters.add(sent_bytes=nbytes)

    def start(
        self, unit: int, arguments: Mapping[str, int], channels: Mapping[str, Sequence[int]],
        codes: int,
    ) -> Started:  # fmt: skip
        """Writes the arguments and starts a unit.

        Args:
            channels: per-channel arguments.
            codes: that it will scan.
        """
        for name, value in arguments.items():
            self._write(unit, name, value, 0)
        for name, values in channels.items():
            for channel, value in enumerate(values):
                self._write(unit, name, value, channel)
        self.device.write_register(unit, _CTRL, int(Ctrl.START))
        now_s = time.monotonic()
        return Started(now_s, now_s + self.config.timeout_s, codes)

    def _write(self, unit: int, name: str, value: int, channel: int) -> None:
        """Writes an argument unless the register holds the value since the last start."""
        key = (unit, name, channel)
        if self._written.get(key) != value:
            write_argument(self.device, unit, name, value, channel)
            self._written[key] = value

    def wait(self, unit: int, started: Started) -> None:
        """Polls until the unit is done: at once, and then when it is likely to be.

        Raises:
            DeviceFault: it is not done in time, or ended with an error.
            InternalError: it refused its arguments.
        """
        pause_s, first = _FIRST_PAUSE_S, True
        while not self.device.read_register(unit, _CTRL) & Ctrl.DONE:
            if first:
                self._sleep_until_likely(started)
                first = False
                continue
            if time.monotonic() > started.until_s:
                raise self.fault(f"unit {unit} is not done after {self.config.timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 1.25 * pause_s)
        if started.codes:
            took_s = (time.monotonic() - started.since_s) / started.codes
            # A quick start pulls the estimate down at once: looking early costs less.
            self._s_per_code = min(took_s, (7 * self._s_per_code + took_s) / 8)
        code = read_value(self.device, unit, "error")
        if code != Error.NONE:
            self._raise_error(unit, code)
        self.counters.add(
            starts=1, **{name: read_value(self.device, unit, name) for name in _READ_AFTER}
        )

    def _sleep_until_likely(self, started: Started) -> None:
        likely_s = started.since_s + _FIRST_LOOK * self._s_per_code * started.codes
        left_s = min(likely_s, started.until_s) - time.monotonic()
        time.sleep(max(_FIRST_PAUSE_S, left_s))

    def _raise_error(self, unit: int, code: int) -> None:
        query = read_value(self.device, unit, "error_query")
        known = code in Error.__members__.values()
        name = Error(code).name.lower() if known else f"code {code}"
        message = f"unit {unit} ended with {name} at query {query}"
        if code == Error.BAD_ARGUMENT:
            raise InternalError(f"device {self.device.name}: {message}")
        raise self.fault(message)

    def fault(self, message: str) -> DeviceFault:
        """Notes a fault; the error to raise for it."""
        self.broken = True
        self.counters.add(faults=1)
        return DeviceFault(
            f"device {self.device.name}: {message}",
            hint="the card is programmed anew before the next search",
        )

    def reset(self) -> None:
        """Programs the card anew; everything in its memory is lost.

        Raises:
            VersionMismatch: as the constructor.
        """
        self.device.reset()
        self._written.clear()
        self.generation += 1
        self.build = read_build(self.device)
        self.broken = False
        self.counters.add(resets=1)


class WorkArea:
    """A buffer of one unit that grows to what a call needs."""

    def __init__(self, driver: CardDriver) -> None:
        self._driver = driver
        self._buffer: Buffer | None = None
        self._generation = driver.generation

    def view(self, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """Host side of at least this size, seen as an array."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self._generation != self._driver.generation:
            self._buffer, self._generation = None, self._driver.generation
        if self._buffer is None or len(self._buffer.host) < nbytes:
            if self._buffer is not None:
                self._driver.device.free(self._buffer.address)
                self._buffer = None
            self._buffer = self._driver.allocate(1 << max(12, (nbytes - 1).bit_length()))
        return self._buffer.host[:nbytes].view(dtype).reshape(shape)

    def send(self, nbytes: int) -> None:
        """Syncs to the device."""
        assert self._buffer is not None, "sent before it was filled"
        self._driver.send(self._buffer, nbytes)

    def fetch(self, nbytes: int) -> None:
        """Syncs from the device."""
        assert self._buffer is not None, "fetched before it was placed"
        self._buffer.from_device(nbytes)
        self._driver.counters.add(fetched_bytes=nbytes)

    @property
    def address(self) -> int:
        assert self._buffer is not None, "used before it was placed"
        return self._buffer.address
