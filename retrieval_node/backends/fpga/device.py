"""What the driver needs of a device: buffers, registers, start and wait.

Registers of a compute unit are 32 bits wide; a 64-bit argument takes two,
the lower half first. Devices resolve memory only from addresses in registers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ragschema.types import U8

CTRL: Final = 0x00
ERROR: Final = 0x10
CODES_LOW: Final = 0x14
CODES_HIGH: Final = 0x18


class Ctrl(enum.IntFlag):
    """Bits of the control register; DONE clears when it is read."""

    START = 1
    DONE = 2
    IDLE = 4


class DeviceError(enum.IntEnum):
    """Values of the error register after a run."""

    NONE = 0
    BAD_ADDRESS = 1
    BAD_ARGUMENT = 2


@dataclass(frozen=True)
class Argument:
    """A kernel argument in the register map; 64-bit when wide."""

    offset: int
    wide: bool


#: Addresses are device addresses of buffers. Lane masks of jobs lie in ``masks``
#: when mask_bytes is not 0, else in ``alive``, which stays on the device; jobs
#: with offset -1 have none.
ARGUMENTS: Final[Mapping[str, Argument]] = {
    "codes": Argument(0x20, True),
    "ids": Argument(0x28, True),
    "alive": Argument(0x30, True),
    "masks": Argument(0x38, True),
    "tables": Argument(0x40, True),
    "jobs": Argument(0x48, True),
    "starts": Argument(0x50, True),
    "sums": Argument(0x58, True),
    "rows": Argument(0x60, True),
    "counts": Argument(0x68, True),
    "code_rows": Argument(0x70, True),
    "mask_bytes": Argument(0x78, True),
    "num_jobs": Argument(0x80, False),
    "num_queries": Argument(0x84, False),
    "num_tables": Argument(0x88, False),
    "m": Argument(0x8C, False),
    "k": Argument(0x90, False),
    "sum_max": Argument(0x94, False),
    "code_bytes": Argument(0x98, True),
    "row_start": Argument(0xA0, True),
    "alive_bytes": Argument(0xA8, True),
}


class Buffer(Protocol):
    """Memory with a host side and a device side, equal only after a sync."""

    @property
    def address(self) -> int:
        """Device address, a multiple of 4096."""

    @property
    def host(self) -> U8:
        """Host side, uint8 [size]."""

    def to_device(self, nbytes: int) -> None:
        """Copies the first bytes of the host side to the device."""

    def from_device(self, nbytes: int) -> None:
        """Copies the first bytes of the device side to the host."""


class Device(Protocol):
    """One card. Each compute unit runs one scan at a time."""

    @property
    def name(self) -> str: ...

    @property
    def compute_units(self) -> int: ...

    @property
    def banks(self) -> int: ...

    def free_bytes(self, bank: int) -> int:
        """Bytes left in a memory bank."""

    def allocate(self, nbytes: int, bank: int) -> Buffer:
        """Raises Unavailable when the bank is full."""

    def free(self, address: int) -> None:
        """Gives a buffer back by its address."""

    def write_register(self, unit: int, offset: int, value: int) -> None: ...

    def read_register(self, unit: int, offset: int) -> int: ...

    def wait(self, unit: int, timeout_s: float) -> None:
        """Until the unit is done; raises Unavailable after the time."""

    def close(self) -> None: ...


def write_argument(device: Device, unit: int, name: str, value: int) -> None:
    """Writes one named argument; wide ones into two registers."""
    argument = ARGUMENTS[name]
    device.write_register(unit, argument.offset, value & 0xFFFFFFFF)
    if argument.wide:
        device.write_register(unit, argument.offset + 4, value >> 32)


def read_argument(registers: Mapping[int, int], name: str) -> int:
    """The value of an argument as a device sees it in its registers."""
    argument = ARGUMENTS[name]
    low = registers.get(argument.offset, 0)
    return low | (registers.get(argument.offset + 4, 0) << 32 if argument.wide else 0)
